import { defineConfig } from 'drizzle-kit'

/** `npm run generate:migrations` writes the SQL that leads from the last migration to src/db/schema.ts. */
export default defineConfig({ dialect: 'sqlite', schema: './src/db/schema.ts', out: './migrations' })

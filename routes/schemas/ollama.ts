import { z } from '@hono/zod-openapi'

export const MANIFEST_TYPE = 'application/vnd.docker.distribution.manifest.v2+json'

const layer = z.object({
  mediaType: z.string().openapi({ example: 'application/vnd.ollama.image.model' }),
  digest: z.string().openapi({ example: `sha256:${'0'.repeat(64)}` }),
  size: z.number().int(),
})

/** Docker's image manifest, version 2, with Ollama's media types. */
export const imageManifest = z
  .object({
    schemaVersion: z.literal(2),
    mediaType: z.literal(MANIFEST_TYPE),
    config: layer,
    layers: z.array(layer),
  })
  .openapi('OllamaManifest')

export type ImageLayer = z.infer<typeof layer>
export type ImageManifest = z.infer<typeof imageManifest>

import { z } from '@hono/zod-openapi'

export const exampleCommit = '0f3c9a1be27d4c5566778899aabbccddeeff0011'

/** What hub clients read of a repository; https://huggingface.co/docs/hub/api. */
export const repository = z
  .object({
    _id: z.string(),
    id: z.string(),
    modelId: z.string(),
    author: z.string(),
    sha: z.string().openapi({ example: exampleCommit }),
    createdAt: z.string(),
    lastModified: z.string(),
    private: z.boolean(),
    gated: z.literal(false),
    disabled: z.boolean(),
    downloads: z.number().int(),
    likes: z.number().int(),
    tags: z.array(z.string()),
    pipeline_tag: z.string(),
    library_name: z.string(),
    siblings: z.array(z.object({ rfilename: z.string() })),
  })
  .openapi('HubRepository')

export const treeEntry = z
  .object({
    type: z.enum(['file', 'directory']),
    oid: z.string(),
    size: z.number().int(),
    path: z.string(),
    lfs: z
      .object({
        oid: z.string().openapi({ description: 'SHA-256.' }),
        size: z.number().int(),
        pointerSize: z.number().int(),
      })
      .optional(),
    lastCommit: z.object({ id: z.string(), title: z.string(), date: z.string() }).optional(),
  })
  .openapi('HubTreeEntry')

export const pathsInfoRequest = z
  .object({
    paths: z.union([z.string(), z.array(z.string()).max(10_000)]),
    expand: z.union([z.boolean(), z.string()]).optional(),
  })
  .openapi('HubPathsInfoRequest')

import type { ConfigInput } from './src/settings.ts'

/**
 * Everything the operator decides, in one place. Relative paths start at this file's folder. Each value may be left
 * out: the defaults stand in src/settings.ts. A few can be overridden by environment variables (ANNEAL_PORT, …).
 */
const config: ConfigInput = {
  directories: {
    /** Folders whose subfolders are base models in Hugging Face layout. */
    models: ['data/models'],
    /** The folder with dataset_info.json. */
    datasets: 'data',
    /** What runs, merges and exports write. */
    saves: 'saves',
  },
  /**
   * What runs and models compute on: 'cpu', 'webgpu', 'cuda', or 'cuda:1' for one of several GPUs. 'auto' takes the best that
   * passes a self-test (docs/GPU.md).
   */
  device: 'auto',
  server: {
    host: '127.0.0.1',
    port: 8000,
    /** Host names that clients may use, besides the loopback names and `host`. */
    allowedHosts: [],
    /** Origins of web pages that may call the API, such as 'http://localhost:3000'. */
    allowedOrigins: [],
    /**
     * SHA-256 of each accepted key, in hex (printf %s "$KEY" | sha256sum). Empty: no key is asked for. A key may do
     * everything, or what its scopes say: { sha256: '…', scopes: ['chat', 'jobs', 'metrics'] }; 'admin' is everything.
     */
    apiKeys: [],
  },
  limits: {
    /** Largest dataset upload. */
    uploadBytes: 1024 ** 3,
    /** Largest JSON body. */
    bodyBytes: 8 * 1024 ** 2,
    /** Jobs of each kind that may wait. */
    queuedJobs: 100,
    /** Chat requests that may wait. */
    queuedChats: 64,
    /** Longest prompt plus answer in tokens, where the model's own limit is not lower. */
    contextTokens: 8192,
    /** Most tokens that one request may ask for: prompts times n times max_tokens. */
    requestTokens: 65_536,
  },
  /** What no client can lift. The reasons are in src/policy.ts. */
  policy: {
    /** Widths that an export may have. 16 is no quantization. */
    allowedBits: [4, 8, 16],
    /** Smallest model, in parameters, that may be exported at 8 or 4 bits. */
    minQuantizeParameters: 700e6,
  },
  /** Jobs of each kind that run at the same time. */
  concurrency: { train: 1, merge: 1, export: 1, import: 1, evaluation: 1 },
  /** An MLflow server for runs with report_to mlflow: { mlflow: { uri: 'http://127.0.0.1:5000' } }. */
  tracking: {},
  hub: {
    /** Where `anneal pull` fetches base models; HF_ENDPOINT and HF_TOKEN go before. Nothing else is ever asked. */
    endpoint: 'https://huggingface.co',
  },
  chat: {
    /** Threads of the engine that answers; 0 leaves the choice to it. */
    threads: 0,
    /** Base models that stay loaded at the same time. */
    loadedModels: 1,
    /** Ids of models that are loaded at the start; /health answers 503 until they are. */
    preload: [],
    /** How long an unused model stays in memory: minutes, or 'forever'. */
    keepAliveMinutes: 5,
    /** How bases are served: 'float32' as they are, 'int8' or 'int4' smaller and faster (npm run bench:quality). */
    weights: 'float32',
    /** The same for single models, by id. */
    modelWeights: {},
    /** Another device than above for chat (device: 'cpu'), or for single models, by id. */
    modelDevices: {},
    /**
     * 'ready': the first adapter joins at once. 'on demand': bases decode a little faster until the first adapter is
     * used, which then has everybody wait about a second.
     */
    adapters: 'ready',
    /** Requests that one model answers at the same time; the others wait in line. */
    concurrent: 8,
    /**
     * Memory for keys and values of the requests that one model answers (kvBytes: 1024 ** 3). Left out: 1 GiB, or on a GPU most of
     * what the weights leave free.
     */
    /** Memory for those of earlier prompts and answers, which are not computed again. */
    prefixBytes: 256 * 1024 ** 2,
    /*
     * promptLookup (true or false): guess tokens ahead from the prompt and the answer so far, while one request is alone:
     * answers that quote, extract or edit come two to four times as fast. Left out: with float32 weights alone, as at 8 and 4 bits an
     * answer may then differ in near ties from one that shares the batch. Requests with a `prediction` guess always.
     */
    /** Adapters of one model that stay in memory, the last used ones. */
    loadedAdapters: 16,
  },
}

export default config

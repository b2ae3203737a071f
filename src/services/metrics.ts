import { basename } from 'node:path'
import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from 'prom-client'
import type { EngineHosts, LoadedEngine } from '../engine-host/client.ts'
import type { JobQueue } from '../jobs/queue.ts'
import { ACTIVE_STATUSES } from '../jobs/types.ts'

/** Seconds; from a cached prompt on a fast machine to a long one on two cores. */
const LATENCY_BUCKETS = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300]

/** The server's own registry, with vLLM's names where they apply. */
export class Metrics {
  readonly registry = new Registry()
  readonly promptTokens = this.#counter('vllm:prompt_tokens_total', 'Tokens of prompts.', ['model_name'])
  readonly generationTokens = this.#counter('vllm:generation_tokens_total', 'Tokens that were generated.', [
    'model_name',
  ])
  readonly prefixQueries = this.#counter(
    'vllm:prefix_cache_queries_total',
    'Tokens of prompts that were looked up in the prefix cache.',
    ['model_name'],
  )
  readonly prefixHits = this.#counter(
    'vllm:prefix_cache_hits_total',
    'Tokens of prompts that the prefix cache spared.',
    ['model_name'],
  )
  readonly guessedTokens = this.#counter(
    'vllm:spec_decode_num_draft_tokens_total',
    'Tokens that were guessed ahead and computed.',
    ['model_name'],
  )
  readonly acceptedGuesses = this.#counter(
    'vllm:spec_decode_num_accepted_tokens_total',
    'Tokens that were guessed ahead and came true.',
    ['model_name'],
  )
  readonly requestsSucceeded = this.#counter('vllm:request_success_total', 'Requests that have ended.', [
    'model_name',
    'finished_reason',
  ])
  readonly timeToFirstToken = this.#histogram('vllm:time_to_first_token_seconds', 'Until the first text.')
  readonly interTokenLatency = this.#histogram(
    'vllm:inter_token_latency_seconds',
    'Between two pieces of text.',
  )
  readonly requestLatency = this.#histogram('vllm:e2e_request_latency_seconds', 'Of a whole request.')
  readonly queueTime = this.#histogram('vllm:request_queue_time_seconds', 'Until a request joined the batch.')
  readonly httpRequests = this.#counter('anneal_http_requests_total', 'Answers, by route and status.', [
    'method',
    'route',
    'status',
  ])
  readonly httpDuration = this.#histogram('anneal_http_request_duration_seconds', 'Until the answer began.', [
    'method',
    'route',
  ])

  constructor(queue: JobQueue, hosts: Pick<EngineHosts, 'loaded'>) {
    collectDefaultMetrics({ register: this.registry })
    const perModel = this.#perModel.bind(this, hosts)
    perModel('vllm:num_requests_running', 'Requests in the batch.', ({ load }) => load.running)
    perModel('vllm:num_requests_waiting', 'Requests in the queue.', ({ load }) => load.waiting)
    perModel(
      'vllm:kv_cache_usage_perc',
      'Part of the memory for keys and values in use, 0 to 1.',
      ({ load }) => load.cacheUsage,
    )
    perModel('anneal_model_memory_bytes', 'Resident memory of the process.', ({ memoryBytes }) => memoryBytes)
    new Gauge({
      name: 'anneal_jobs',
      help: 'Jobs that wait or run.',
      labelNames: ['kind', 'status'],
      registers: [this.registry],
      async collect() {
        this.reset()
        for (const { kind, status } of await queue.list({ statuses: ACTIVE_STATUSES }))
          this.inc({ kind, status })
      },
    })
  }

  /** A gauge of each loaded base model, read when it is asked for. */
  #perModel(
    hosts: Pick<EngineHosts, 'loaded'>,
    name: string,
    help: string,
    read: (engine: LoadedEngine) => number,
  ): void {
    new Gauge({
      name,
      help,
      labelNames: ['model_name'],
      registers: [this.registry],
      collect() {
        this.reset()
        for (const engine of hosts.loaded()) {
          this.set({ model_name: basename(engine.baseFolder) }, read(engine))
        }
      },
    })
  }

  #counter<L extends string>(name: string, help: string, labelNames: readonly L[]): Counter<L> {
    return new Counter({ name, help, labelNames: [...labelNames], registers: [this.registry] })
  }

  #histogram<L extends string = 'model_name'>(
    name: string,
    help: string,
    labelNames: readonly L[] = ['model_name' as L],
  ): Histogram<L> {
    const buckets = LATENCY_BUCKETS
    return new Histogram({ name, help, labelNames: [...labelNames], buckets, registers: [this.registry] })
  }
}

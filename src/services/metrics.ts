import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from 'prom-client'
import type { JobQueue } from '../jobs/queue.ts'
import { ACTIVE_STATUSES } from '../jobs/types.ts'

/** Seconds; from a cached prompt on a fast machine to a long one on two cores. */
const LATENCY_BUCKETS = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300]

/** The server's own registry, with vLLM's names where they apply. */
export class Metrics {
  readonly registry = new Registry()
  readonly chatsRunning = this.#gauge('vllm:num_requests_running', 'Chat requests that are being answered.')
  readonly promptTokens = this.#counter('vllm:prompt_tokens_total', 'Tokens of prompts.', ['model_name'])
  readonly generationTokens = this.#counter('vllm:generation_tokens_total', 'Tokens that were generated.', [
    'model_name',
  ])
  readonly chatsSucceeded = this.#counter('vllm:request_success_total', 'Chat requests that were answered.', [
    'model_name',
    'finished_reason',
  ])
  readonly timeToFirstToken = this.#histogram('vllm:time_to_first_token_seconds', 'Until the first text.')
  readonly interTokenLatency = this.#histogram(
    'vllm:inter_token_latency_seconds',
    'Between two pieces of text.',
  )
  readonly chatLatency = this.#histogram('vllm:e2e_request_latency_seconds', 'Of a whole chat request.')
  readonly httpRequests = this.#counter('anneal_http_requests_total', 'Answers, by route and status.', [
    'method',
    'route',
    'status',
  ])
  readonly httpDuration = this.#histogram('anneal_http_request_duration_seconds', 'Until the answer began.', [
    'method',
    'route',
  ])

  constructor(queue: JobQueue) {
    collectDefaultMetrics({ register: this.registry })
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

  #gauge(name: string, help: string): Gauge {
    return new Gauge({ name, help, registers: [this.registry] })
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

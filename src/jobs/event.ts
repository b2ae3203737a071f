import type { NewEvent } from './types.ts'

/** An event of now. */
export function event(type: NewEvent['type'], message: string, data: NewEvent['data'] = {}): NewEvent {
  return { type, message, data, createdAt: new Date() }
}

import { fakeJob, fakeSupervisor, openQueue, untilEvent } from './support.ts'

/** A server that runs one job and is killed by the test. Arguments: folder, script. Prints the child's process id. */
const [folder, script] = process.argv.slice(2)
const open = openQueue(folder)
const job = await open.queue.submit(fakeJob(script!, { id: 'run-00000000beef' }))
fakeSupervisor(open).start()
const { data } = await untilEvent(open, job.id, (event) => event.type === 'log')
process.stdout.write(`${JSON.stringify(data)}\n`)

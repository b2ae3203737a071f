// The child process that tries a device: a driver that crashes or hangs ends here.
import type { Device } from '../../engine/onnx/device.ts'
import { selfTest } from '../../engine/onnx/self-test.ts'

process.on('message', async (device: Device) => {
  const result = await selfTest(device)
  process.send?.(result, undefined, undefined, () => process.exit(0))
})
process.on('disconnect', () => process.exit(0))

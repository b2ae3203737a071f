// The face of this room: what the others import of the safetensors format.
export {
  readSafetensorsHeader,
  SAFETENSORS_NAMES,
  type SafetensorsDType,
  type SafetensorsHeader,
  type TensorEntry,
} from './safetensors-header.ts'
export { type PlannedTensor, SafetensorsWriter, writeSafetensors } from './safetensors-writer.ts'
export { WeightFolder } from './weight-folder.ts'

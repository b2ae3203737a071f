// The face of this room: what the others import of the safetensors format.
export { SAFETENSORS_NAMES } from './safetensors-header.ts'
export { type PlannedTensor, SafetensorsWriter, writeSafetensors } from './safetensors-writer.ts'
export { WeightFolder } from './weight-folder.ts'

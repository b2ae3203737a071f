/** Where a model's tensors come from, whatever they are stored as: a checkpoint, or an export read back. */
export interface WeightSource {
  /** A tensor's values by its name in the checkpoint. */
  readFloat32(name: string): Float32Array
  /** Rows [first, first + count) of a tensor, for tables that are too large to be read as a whole. */
  readRows(name: string, first: number, count: number): Float32Array
}

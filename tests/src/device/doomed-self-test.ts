// A self-test that ends as broken drivers have it end.
process.on('message', () => {
  if (process.env.DOOM === 'exit') process.exit(3)
  if (process.env.DOOM === 'abort') process.abort()
  if (process.env.DOOM === 'hang') for (;;);
  const said =
    '[E:onnxruntime] Failed to load library /x/libonnxruntime_providers_cuda.so with error: libcublasLt.so.13: cannot open shared object file: No such file or directory\n'
  const result = { ok: false, reason: 'OrtSession: Failed to load shared library' }
  process.stderr.write(said, () => process.send?.(result, undefined, undefined, () => process.exit(0)))
})

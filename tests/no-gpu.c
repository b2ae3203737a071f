/*
 * CUDA 13's driver, runtime and cuBLAS for a machine without a GPU: memory is the host's, copies are copies, and kernels
 * compute nothing. onnxruntime's CUDA provider then chooses kernels for a graph's nodes, allocates and launches as on a
 * device, so that tests learn which nodes it takes and what it refuses. cuda.ts builds it under each of the libraries' names.
 * Signatures end where nothing further is read.
 */
#include <malloc.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { SUCCESS = 0, FAILURE = 1 };
static int handle;

/* cudaDeviceProp up to what the provider reads */
struct properties {
  char name[256], uuid[16], luid[8];
  unsigned luid_mask;
  size_t memory, shared_memory_per_block;
  int registers_per_block, warp_size;
  size_t pitch;
  int threads_per_block, block_size[3], grid_size[3];
  size_t constant_memory;
  int major, minor;
  size_t texture_alignment, texture_pitch_alignment;
  int multiprocessors;
};
enum { PROPERTIES_SIZE = 1008, MEMORY = 80, MAJOR = 9, MULTIPROCESSORS = 132, WARP = 32, THREADS = 1024 };

int cudaGetDeviceProperties(struct properties *p) {
  memset(p, 0, PROPERTIES_SIZE);
  strcpy(p->name, "no GPU");
  p->memory = (size_t)MEMORY << 30;
  p->shared_memory_per_block = 48 << 10;
  p->registers_per_block = 1 << 16;
  p->warp_size = WARP;
  p->threads_per_block = p->block_size[0] = p->block_size[1] = THREADS;
  p->block_size[2] = 64;
  p->grid_size[0] = INT32_MAX;
  p->grid_size[1] = p->grid_size[2] = UINT16_MAX;
  p->major = MAJOR;
  p->multiprocessors = MULTIPROCESSORS;
  return SUCCESS;
}

int cudaDeviceGetAttribute(int *value, int attribute) {
  switch (attribute) {
    case 10: *value = WARP; break;
    case 16: *value = MULTIPROCESSORS; break;
    case 75: *value = MAJOR; break;
    case 76: *value = 0; break;
    default: *value = THREADS;
  }
  return SUCCESS;
}

int cudaGetDeviceCount(int *count) { *count = 1; return SUCCESS; }
int cudaGetDevice(int *device) { *device = 0; return SUCCESS; }
int cudaDriverGetVersion(int *version) { *version = 13000; return SUCCESS; }
int cudaRuntimeGetVersion(int *version) { *version = 13000; return SUCCESS; }
int cudaMemGetInfo(size_t *available, size_t *total) { *available = *total = (size_t)MEMORY << 30; return SUCCESS; }

/* memory: bytes copied so far by cudaMemcpyKind (1 to the device, 2 from it, 3 within it), bytes of the device in use, and their most */
uint64_t copied[5], in_use, most_in_use;
static int allocate(void **memory, size_t bytes) {
  *memory = aligned_alloc(256, (bytes / 256 + 1) * 256);
  return *memory ? SUCCESS : FAILURE;
}
static int allocate_on_device(void **memory, size_t bytes) {
  if (allocate(memory, bytes)) return FAILURE;
  in_use += malloc_usable_size(*memory);
  if (in_use > most_in_use) most_in_use = in_use;
  return SUCCESS;
}
static int release(void *memory) { free(memory); return SUCCESS; }
static int release_on_device(void *memory) {
  if (memory) in_use -= malloc_usable_size(memory);
  return release(memory);
}
static int copy(void *to, const void *from, size_t bytes, int kind) {
  copied[kind] += bytes;
  memmove(to, from, bytes);
  return SUCCESS;
}
static int fill(void *memory, int value, size_t bytes) { memset(memory, value, bytes); return SUCCESS; }
#define SAME(name, parameters, call) int name parameters { return call; }
SAME(cudaMalloc, (void **memory, size_t bytes), allocate_on_device(memory, bytes))
SAME(cudaMallocHost, (void **memory, size_t bytes), allocate(memory, bytes))
SAME(cudaHostAlloc, (void **memory, size_t bytes), allocate(memory, bytes))
SAME(cudaMallocFromPoolAsync, (void **memory, size_t bytes), allocate_on_device(memory, bytes))
SAME(cudaFree, (void *memory), release_on_device(memory))
SAME(cudaFreeHost, (void *memory), release(memory))
SAME(cudaFreeAsync, (void *memory), release_on_device(memory))
SAME(cudaMemcpy, (void *to, const void *from, size_t bytes, int kind), copy(to, from, bytes, kind))
SAME(cudaMemcpyAsync, (void *to, const void *from, size_t bytes, int kind), copy(to, from, bytes, kind))
SAME(cudaMemset, (void *memory, int value, size_t bytes), fill(memory, value, bytes))
SAME(cudaMemsetAsync, (void *memory, int value, size_t bytes), fill(memory, value, bytes))
int cudaMemcpy2DAsync(char *to, size_t toPitch, const char *from, size_t fromPitch, size_t width, size_t height, int kind) {
  for (size_t row = 0; row < height; row++) copy(to + row * toPitch, from + row * fromPitch, width, kind);
  return SUCCESS;
}
int cudaMemPoolGetAttribute(void *pool, int attribute, uint64_t *value) { *value = 0; return SUCCESS; }
int cudaPointerGetAttributes(void *attributes) { return fill(attributes, 0, 24); }

/* answers */
int cudaEventElapsedTime(float *milliseconds) { *milliseconds = 0; return SUCCESS; }
int cudaStreamIsCapturing(void *stream, int *status) { *status = 0; return SUCCESS; }
int cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int *blocks) { *blocks = 1; return SUCCESS; }
int cudaFuncGetAttributes(void *attributes) { return SUCCESS; }
int cudaGetDriverEntryPointByVersion(const char *symbol, void **function) { *function = NULL; return FAILURE; }
int cublasGetMathMode(void *cublas, int *mode) { *mode = 0; return SUCCESS; }
int cudaLaunchHostFunc(void *stream, void (*function)(void *), void *data) { function(data); return SUCCESS; }
const char *cudaGetErrorName(int code) { return "no GPU"; }
const char *cudaGetErrorString(int code) { return "no GPU"; }
const char *cublasGetStatusName(int code) { return "no GPU"; }
const char *cublasGetStatusString(int code) { return "no GPU"; }
void **__cudaRegisterFatBinary(void *binary) { static void *entry; return &entry; }

#define MAKES(name) int name(void **made) { *made = &handle; return SUCCESS; }
MAKES(__cudaGetKernel)
MAKES(cudaEventCreate) MAKES(cudaEventCreateWithFlags) MAKES(cudaMemPoolCreate)
MAKES(cudaStreamCreate) MAKES(cudaStreamCreateWithFlags)
MAKES(cublasCreate_v2) MAKES(cublasLtCreate) MAKES(cublasLtMatmulDescCreate) MAKES(cublasLtMatmulPreferenceCreate)
MAKES(cublasLtMatrixLayoutCreate) MAKES(cublasLtMatrixTransformDescCreate)

#define SUCCEEDS(name) int name(void) { return SUCCESS; }
SUCCEEDS(__cudaLaunchKernel) SUCCEEDS(__cudaPopCallConfiguration) SUCCEEDS(__cudaPushCallConfiguration)
SUCCEEDS(__cudaRegisterFatBinaryEnd) SUCCEEDS(__cudaRegisterFunction) SUCCEEDS(__cudaRegisterVar)
SUCCEEDS(__cudaUnregisterFatBinary) SUCCEEDS(cuTensorMapEncodeTiled)
SUCCEEDS(cudaDeviceSynchronize) SUCCEEDS(cudaEventDestroy) SUCCEEDS(cudaEventRecord) SUCCEEDS(cudaEventSynchronize)
SUCCEEDS(cudaFuncSetAttribute) SUCCEEDS(cudaGetLastError) SUCCEEDS(cudaGraphDestroy) SUCCEEDS(cudaGraphExecDestroy)
SUCCEEDS(cudaGraphInstantiate) SUCCEEDS(cudaGraphLaunch) SUCCEEDS(cudaKernelSetAttributeForDevice)
SUCCEEDS(cudaLaunchCooperativeKernel) SUCCEEDS(cudaLaunchKernel)
SUCCEEDS(cudaLaunchKernelExC) SUCCEEDS(cudaLibraryGetKernel) SUCCEEDS(cudaLibraryLoadData)
SUCCEEDS(cudaLibraryUnload) SUCCEEDS(cudaMemPoolDestroy) SUCCEEDS(cudaMemPoolSetAttribute)
SUCCEEDS(cudaMemPoolTrimTo) SUCCEEDS(cudaMemcpyFromSymbol) SUCCEEDS(cudaPeekAtLastError) SUCCEEDS(cudaSetDevice)
SUCCEEDS(cudaStreamBeginCapture) SUCCEEDS(cudaStreamDestroy) SUCCEEDS(cudaStreamEndCapture)
SUCCEEDS(cudaStreamSynchronize) SUCCEEDS(cudaStreamWaitEvent)
SUCCEEDS(cublasDcopy_v2) SUCCEEDS(cublasDestroy_v2) SUCCEEDS(cublasDgeam) SUCCEEDS(cublasDgemmBatched)
SUCCEEDS(cublasDgemmStridedBatched) SUCCEEDS(cublasDgemm_v2) SUCCEEDS(cublasDgetrfBatched) SUCCEEDS(cublasDgetriBatched)
SUCCEEDS(cublasGemmBatchedEx) SUCCEEDS(cublasGemmEx) SUCCEEDS(cublasGemmStridedBatchedEx) SUCCEEDS(cublasScopy_v2)
SUCCEEDS(cublasSetMathMode) SUCCEEDS(cublasSetStream_v2) SUCCEEDS(cublasSgeam) SUCCEEDS(cublasSgemmBatched)
SUCCEEDS(cublasSgemmStridedBatched) SUCCEEDS(cublasSgemm_v2) SUCCEEDS(cublasSgetrfBatched) SUCCEEDS(cublasSgetriBatched)
SUCCEEDS(cublasSscal_v2)
SUCCEEDS(cublasLtDestroy) SUCCEEDS(cublasLtMatmul) SUCCEEDS(cublasLtMatmulAlgoConfigSetAttribute)
SUCCEEDS(cublasLtMatmulAlgoGetHeuristic) SUCCEEDS(cublasLtMatmulAlgoInit) SUCCEEDS(cublasLtMatmulDescDestroy)
SUCCEEDS(cublasLtMatmulDescSetAttribute) SUCCEEDS(cublasLtMatmulPreferenceDestroy)
SUCCEEDS(cublasLtMatmulPreferenceSetAttribute) SUCCEEDS(cublasLtMatrixLayoutDestroy)
SUCCEEDS(cublasLtMatrixLayoutSetAttribute) SUCCEEDS(cublasLtMatrixTransform) SUCCEEDS(cublasLtMatrixTransformDescDestroy)

/* A CUDA driver that is none: takes every call that fastconv makes, keeps their names, computes nothing.

   Memory is the host's, so that copies work. `dummy_log` gets the number of every call, `dummy_count` says how
   many there were; `dummy_launches` keeps the kernels. Used by dummy_driver.py. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define KEPT 4096
#define HEAD 256 /* bytes in front of every block, which tell its size */
#define BLOCKS 64

enum {
  INIT, DEVICE, CONTEXT, ATTRIBUTE, LOAD, ENCODE, LAUNCH, ALLOC, FREE, UPLOAD, DOWNLOAD, WAIT, EVENT, ORDER,
  POINTER
};

int dummy_log[KEPT], dummy_count, dummy_devices = 1, dummy_current = -1, dummy_alive;
const void *dummy_kernels[KEPT];
void *dummy_streams[KEPT];
static uintptr_t next_handle = 4096;
static char *free_blocks[BLOCKS];
static int free_count;

static int note(int what) {
  if (dummy_count < KEPT) dummy_log[dummy_count] = what;
  dummy_count++;
  return 0;
}

typedef struct {
  unsigned gx, gy, gz, bx, by, bz, shared;
  void *stream, *attributes;
  unsigned count;
} Config;

int cuInit(unsigned flags) { return note(INIT); }
int cuDeviceGetCount(int *count) { *count = dummy_devices; return note(DEVICE); }
int cuDeviceGet(int *device, int ordinal) { *device = ordinal; return note(DEVICE); }
int cuDeviceGetAttribute(int *value, int what, int device) {
  *value = what == 16 ? 132 : what == 75 ? 9 : what == 76 ? 0 : 232448;
  return note(ATTRIBUTE);
}
int cuDevicePrimaryCtxRetain(void **context, int device) {
  *context = (void *)(uintptr_t)(device + 1);
  return note(CONTEXT);
}
int cuDeviceGetDefaultMemPool(void **pool, int device) { *pool = (void *)1; return note(CONTEXT); }
int cuMemPoolSetAttribute(void *pool, int what, void *value) { return note(CONTEXT); }
int cuCtxGetDevice(int *device) {
  note(CONTEXT);
  if (dummy_current < 0) return 201;
  *device = dummy_current;
  return 0;
}
int cuCtxGetCurrent(void **context) { *context = (void *)(uintptr_t)(dummy_current + 1); return note(CONTEXT); }
int cuCtxSetCurrent(void *context) { dummy_current = (int)(uintptr_t)context - 1; return note(CONTEXT); }
int cuCtxSynchronize(void) { return note(WAIT); }

int cuLibraryLoadData(void **module, const void *code, void *a, void *b, unsigned c, void *d, void *e, unsigned f) {
  *module = (void *)1;
  note(LOAD);
  return memcmp(code, "damaged", 7) ? 0 : 200;
}
int cuLibraryGetKernel(void **kernel, void *module, const char *name) {
  *kernel = (void *)next_handle++;
  return note(LOAD);
}
int cuKernelSetAttribute(int what, int value, void *kernel, int device) { return note(LOAD); }
int cuTensorMapEncodeTiled(void *map, ...) { memset(map, 0x11, 128); return note(ENCODE); }
int cuTensorMapEncodeIm2col(void *map, ...) { memset(map, 0x22, 128); return note(ENCODE); }

int cuLaunchKernelEx(const Config *config, void *kernel, void **parameters, void **extra) {
  if (dummy_current < 0) return 201;
  if (!config->gx || !config->bx || config->count || extra) return 1;
  if (dummy_count < KEPT) {
    dummy_kernels[dummy_count] = kernel;
    dummy_streams[dummy_count] = config->stream;
  }
  return note(LAUNCH);
}
int cuMemAllocAsync(uint64_t *address, size_t nbytes, void *stream) {
  if (dummy_current < 0) return 201;
  if (!nbytes) return 1;
  size_t whole = HEAD + (nbytes + HEAD - 1) / HEAD * HEAD;
  char *block = NULL;
  for (int i = free_count; i-- && !block;)  /* a pool, as the driver's: what was freed last is had at once */
    if (*(size_t *)free_blocks[i] == whole) {
      block = free_blocks[i];
      free_blocks[i] = free_blocks[--free_count];
    }
  if (!block) {
    block = aligned_alloc(HEAD, whole);
    if (!block) return 2;
    *(size_t *)block = whole;
  }
  *address = (uint64_t)(uintptr_t)(block + HEAD);
  dummy_alive++;
  if (dummy_count < KEPT) dummy_streams[dummy_count] = stream;
  return note(ALLOC);
}
int cuMemFreeAsync(uint64_t address, void *stream) {
  char *block = (char *)(uintptr_t)address - HEAD;
  if (free_count < BLOCKS) free_blocks[free_count++] = block;
  else free(block);
  dummy_alive--;
  if (dummy_count < KEPT) dummy_streams[dummy_count] = stream;
  return note(FREE);
}
int cuMemFree_v2(uint64_t address) { return note(WAIT); }
int cuMemcpyHtoDAsync_v2(uint64_t to, const void *from, size_t nbytes, void *stream) {
  memcpy((void *)(uintptr_t)to, from, nbytes);
  return note(UPLOAD);
}
int cuMemcpyDtoHAsync_v2(void *to, uint64_t from, size_t nbytes, void *stream) {
  memcpy(to, (void *)(uintptr_t)from, nbytes);
  return note(DOWNLOAD);
}
int cuStreamSynchronize(void *stream) { return note(WAIT); }
int cuStreamIsCapturing(void *stream, int *capturing) { *capturing = 0; return note(ORDER); }
int cuEventCreate(void **event, unsigned flags) { *event = (void *)1; return note(EVENT); }
int cuEventRecord(void *event, void *stream) { return note(EVENT); }
int cuStreamWaitEvent(void *stream, void *event, unsigned flags) { return note(ORDER); }
int cuEventDestroy_v2(void *event) { return note(EVENT); }
int cuPointerGetAttribute(void *value, int what, uint64_t pointer) {
  *(int *)value = 0;
  return note(POINTER);
}

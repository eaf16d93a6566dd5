/* A stand-in for the CUDA driver of the same four H200: it can be initialised and asked, and makes no context.

   Names and numbers: cuda.h of the driver. */

#define LIBRARY "libcuda"
#include "standin.h"

enum { SUCCESS = 0, INVALID_VALUE = 1, NOT_INITIALIZED = 3, INVALID_DEVICE = 101 };

static int initialised;

int cuInit(unsigned flags)
{
    int code = fate(&flags, "cuInit");
    initialised = code == SUCCESS;
    return code;
}

int cuDriverGetVersion(int *version)
{
    *version = CUDA_VERSION;
    return fate(NULL, "cuDriverGetVersion");
}

int cuDeviceGetCount(unsigned *count)
{
    *count = GPUS;
    return initialised ? fate(count, "cuDeviceGetCount") : NOT_INITIALIZED;
}

static int refused(int device)
{
    return !initialised ? NOT_INITIALIZED : device < 0 || device >= GPUS ? INVALID_DEVICE : SUCCESS;
}

int cuDeviceGet(int *device, int ordinal)
{
    *device = ordinal;
    int code = refused(ordinal);
    return code ? code : fate(NULL, "cuDeviceGet gpu%d", ordinal);
}

int cuDeviceGetUuid_v2(unsigned char *octets, int device)
{
    int code = refused(device);
    if (code)
        return code;
    const char *digits = UUIDS[device];
    for (int n = 0; n < 16; n++, digits += 2) {
        digits += *digits == '-';
        sscanf(digits, "%2hhx", &octets[n]);
    }
    return fate(NULL, "cuDeviceGetUuid_v2 gpu%d", device);
}

int cuDeviceGetPCIBusId(char *text, int size, int device)
{
    snprintf(text, size, "0000:00:%02X.0", FIRST_SLOT + device);
    int code = refused(device);
    return code ? code : fate(NULL, "cuDeviceGetPCIBusId gpu%d", device);
}

static int attribute(int which)
{
    switch (which) {
    case 75: return 9; /* compute capability, major */
    case 76: return 0; /* and minor */
    case 88: return 0; /* pageable memory access: no HMM in this VM */
    case 41:           /* unified addressing */
    case 83:           /* managed memory */
    case 89:           /* and from both sides at once */
    case 91:           /* the host's pointer serves for registered memory */
    case 99:           /* host registration */
    case 102:          /* virtual memory management */
    case 116:          /* GPUDirect RDMA */
    case 124:          /* dma-buf */
        return 1;
    }
    return -1;
}

int cuDeviceGetAttribute(unsigned *value, int which, int device)
{
    int code = refused(device);
    if (code)
        return code;
    *value = attribute(which);
    return attribute(which) < 0 ? INVALID_VALUE : fate(value, "cuDeviceGetAttribute gpu%d %d", device, which);
}

/* What only a trial may call: a survey that does so dies of it. */
#define NEVER(call) \
    int call(void) { return raise(SIGSEGV); }

NEVER(cuMemAddressReserve)
NEVER(cuMemAddressFree)
NEVER(cuMemCreate)
NEVER(cuMemRelease)
NEVER(cuMemMap)
NEVER(cuMemUnmap)
NEVER(cuMemSetAccess)
NEVER(cuMemGetAllocationGranularity)
NEVER(cuMemExportToShareableHandle)
NEVER(cuMemImportFromShareableHandle)
#if MAJOR >= 570
NEVER(cuCheckpointProcessLock)
NEVER(cuCheckpointProcessCheckpoint)
NEVER(cuCheckpointProcessRestore)
NEVER(cuCheckpointProcessUnlock)
NEVER(cuCheckpointProcessGetState)
NEVER(cuCheckpointProcessGetRestoreThreadId)
#endif

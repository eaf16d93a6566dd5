/* A stand-in for the CUDA driver of the same four H200, which does on host memory what it is asked to.

   Names and numbers: cuda.h of the driver. */

#include "libcuda.h"
#include "libcuda_memory.h"
#include "libcuda_ipc.h"
#include "libcuda_vmm.h"
#include "libcuda_streams.h"
#include "libcuda_copies.h"
#include "libcuda_kernels.h"
#include "libcuda_graphs.h"
#if MAJOR >= 570
#include "libcuda_checkpoint.h"
#include "libcuda_answering.h"
#include "libcuda_asking.h"
#endif

int cuInit(unsigned flags)
{
    int code = fate(&flags, "cuInit");
    initialised = code == SUCCESS;
#if MAJOR >= 570
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    if (initialised)
        pthread_once(&once, be_askable);
#endif
    return code;
}

int cuGetErrorName(int code, const char **name)
{
    *name = code == 713 ? "CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED" : NULL; /* one that only the driver can name */
    return *name ? SUCCESS : INVALID_VALUE;
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
    uuid_of(device, octets);
    return fate(NULL, "cuDeviceGetUuid_v2 gpu%d", device);
}

int cuDeviceGetUuid(unsigned char *octets, int device) { return cuDeviceGetUuid_v2(octets, device); }

int cuDeviceGetName(char *text, int size, int device)
{
    snprintf(text, size, "NVIDIA H200");
    int code = refused(device);
    return code ? code : fate(NULL, "cuDeviceGetName gpu%d", device);
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
    case 16: return 132; /* multiprocessors */
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

/* --- contexts ----------------------------------------------------------------------------------------------- */

int cuDevicePrimaryCtxRetain(Context **context, int device)
{
    ENTER();
    int code = refused(device);
    code = code ? code : lost ? lost : counted("cuDevicePrimaryCtxRetain gpu%d", device);
    if (code)
        return code;
    *context = &contexts[device];
    contexts[device].retained++;
    ours()->present |= 1U << physical[device];
    return SUCCESS;
}

int cuDevicePrimaryCtxRelease_v2(int device)
{
    ENTER();
    int code = refused(device);
    code = code ? code : lost ? lost : counted("cuDevicePrimaryCtxRelease_v2 gpu%d", device);
    if (code || !contexts[device].retained)
        return code ? code : INVALID_CONTEXT;
    if (--contexts[device].retained == 0) {
        drain(&contexts[device]);
        abandon(device);
        memset(contexts[device].peer, 0, sizeof contexts[device].peer);
        ours()->present &= ~(1U << physical[device]);
    }
    return lost;
}

/* One of ours that is retained. */
static int good(const Context *context)
{
    return context >= contexts && context < contexts + GPUS && context->retained;
}

int cuCtxSetCurrent(Context *context)
{
    int code = unfit(0);
    if (code || (context && !good(context)))
        return code ? code : INVALID_CONTEXT;
    current = context;
    return context ? counted("cuCtxSetCurrent gpu%d", context->gpu) : SUCCESS;
}

int cuCtxGetCurrent(Context **context)
{
    *context = current;
    return initialised ? SUCCESS : NOT_INITIALIZED;
}

int cuDeviceCanAccessPeer(unsigned *can, int device, int peer)
{
    int code = refused(device) ? refused(device) : refused(peer);
    if (code)
        return code;
    *can = device != peer;
    return lost ? lost : fate(can, "cuDeviceCanAccessPeer gpu%d gpu%d", device, peer);
}

int cuCtxEnablePeerAccess(Context *peer, unsigned flags)
{
    ENTER();
    int code = unfit(1);
    if (code || !good(peer))
        return code ? code : INVALID_CONTEXT;
    if (flags || peer == current)
        return flags ? INVALID_VALUE : INVALID_DEVICE;
    code = counted("cuCtxEnablePeerAccess gpu%d gpu%d", current->gpu, peer->gpu);
    if (code || current->peer[peer->gpu] || !can_access(current->gpu, peer->gpu))
        return code ? code : current->peer[peer->gpu] ? PEER_ACCESS_ALREADY_ENABLED : PEER_ACCESS_UNSUPPORTED;
    current->peer[peer->gpu] = 1;
    return SUCCESS;
}

/* What nothing here calls yet: whoever does so dies of it. */
#define NEVER(call) \
    int call(void) { return raise(SIGSEGV); }

NEVER(cuMemExportToShareableHandle)
NEVER(cuMemImportFromShareableHandle)

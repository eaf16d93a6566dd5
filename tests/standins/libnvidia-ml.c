/* A stand-in for NVML on a host with four H200 behind NVSwitches, by what such a host answered (driver 580).

   Names, layouts and numbers: nvml.h of the driver. What a driver older than the call would not have is left out. */

#define LIBRARY "libnvidia-ml"
#include "standin.h"

enum { OK = 0, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, INSUFFICIENT_SIZE = 7, LINKS = 18 };

typedef struct gpu {
    int n;
} Gpu;
static Gpu gpus[GPUS] = {{0}, {1}, {2}, {3}};

int nvmlInitWithFlags(unsigned flags) { return fate(&flags, "nvmlInitWithFlags"); }

const char *nvmlErrorString(int code) { return code == OK ? "Success" : "a code that the stand-in has no words for"; }

/* --- the system ------------------------------------------------------------------------------------------- */

int nvmlSystemGetDriverVersion(char *text, unsigned size)
{
    snprintf(text, size, "%s", VERSION);
    return fate(NULL, "nvmlSystemGetDriverVersion");
}

int nvmlSystemGetNVMLVersion(char *text, unsigned size)
{
    snprintf(text, size, "%d.%s", CUDA_VERSION / 1000, VERSION);
    return fate(NULL, "nvmlSystemGetNVMLVersion");
}

int nvmlSystemGetCudaDriverVersion_v2(int *version)
{
    *version = CUDA_VERSION;
    return fate(NULL, "nvmlSystemGetCudaDriverVersion_v2");
}

int nvmlDeviceGetCount_v2(unsigned *count)
{
    *count = GPUS;
    return fate(count, "nvmlDeviceGetCount_v2");
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, Gpu **gpu)
{
    if (index >= GPUS)
        return INVALID_ARGUMENT;
    *gpu = &gpus[index];
    return fate(NULL, "nvmlDeviceGetHandleByIndex_v2 gpu%u", index);
}

/* --- one GPU ---------------------------------------------------------------------------------------------- */

#define NUMBER(call, usual) \
    int call(const Gpu *gpu, unsigned *number) \
    { \
        *number = usual; \
        return fate(number, #call " gpu%d", gpu->n); \
    }
#define NOW_AND_PENDING(call, usual) \
    int call(const Gpu *gpu, unsigned *now, unsigned *pending) \
    { \
        *now = *pending = usual; \
        return fate(now, #call " gpu%d", gpu->n); \
    }
#define REFUSED(call, code) \
    int call(const Gpu *gpu) \
    { \
        int planned = fate(NULL, #call " gpu%d", gpu->n); \
        return planned ? planned : code; \
    }
typedef struct {
    unsigned pid;
    unsigned long long used;
    unsigned gpu_instance, compute_instance;
} Process;

/* Those with a context on a GPU, as the stand-in libcuda has told it: `count` is the room, and then their number. */
static int running(const Gpu *gpu, unsigned *count, Process *room)
{
    unsigned found = 0;
    for (int n = 0; state(0) && n < PROCESSES_AT_ONCE; n++) {
        const struct holder *one = &state(0)->processes[n];
        if (!(one->present >> gpu->n & 1) || !lives(one->pid))
            continue;
        if (found++ < *count)
            room[found - 1] = (Process){(unsigned)one->pid, one->used[gpu->n], ~0U, ~0U};
    }
    int fits = found <= *count;
    *count = found;
    return fits ? OK : INSUFFICIENT_SIZE;
}

#define PROCESSES(call) \
    int call(const Gpu *gpu, unsigned *count, Process *room) \
    { \
        int code = running(gpu, count, room), planned = fate(count, #call " gpu%d", gpu->n); \
        return planned ? planned : code; \
    }
#define NO_PROCESSES(call) \
    int call(const Gpu *gpu, unsigned *count, Process *room) \
    { \
        (void)room; \
        *count = 0; \
        return fate(count, #call " gpu%d", gpu->n); \
    }

NUMBER(nvmlDeviceGetPersistenceMode, 1)
NUMBER(nvmlDeviceGetComputeMode, 0)
NUMBER(nvmlDeviceGetVirtualizationMode, 1)
NUMBER(nvmlDeviceGetCurrPcieLinkGeneration, 5)
NUMBER(nvmlDeviceGetCurrPcieLinkWidth, 16)
NUMBER(nvmlDeviceGetMaxPcieLinkGeneration, 5)
NUMBER(nvmlDeviceGetMaxPcieLinkWidth, 16)
NOW_AND_PENDING(nvmlDeviceGetMigMode, 0)
NOW_AND_PENDING(nvmlDeviceGetEccMode, 1)
#if MAJOR >= 510
PROCESSES(nvmlDeviceGetComputeRunningProcesses_v3)
NO_PROCESSES(nvmlDeviceGetGraphicsRunningProcesses_v3)
NO_PROCESSES(nvmlDeviceGetMPSComputeRunningProcesses_v3)
#endif
PROCESSES(nvmlDeviceGetComputeRunningProcesses_v2)
NO_PROCESSES(nvmlDeviceGetGraphicsRunningProcesses_v2)
NO_PROCESSES(nvmlDeviceGetMPSComputeRunningProcesses_v2)
REFUSED(nvmlDeviceGetDriverModel, NOT_SUPPORTED)
#if MAJOR >= 535
REFUSED(nvmlDeviceGetDriverModel_v2, NOT_SUPPORTED)
#endif

int nvmlDeviceGetUUID(const Gpu *gpu, char *text, unsigned size)
{
    snprintf(text, size, "GPU-%s", UUIDS[gpu->n]);
    return fate(NULL, "nvmlDeviceGetUUID gpu%d", gpu->n);
}

int nvmlDeviceGetName(const Gpu *gpu, char *text, unsigned size)
{
    snprintf(text, size, "NVIDIA H200");
    return fate(NULL, "nvmlDeviceGetName gpu%d", gpu->n);
}

int nvmlDeviceGetCudaComputeCapability(const Gpu *gpu, int *major, int *minor)
{
    *major = 9;
    *minor = 0;
    return fate(NULL, "nvmlDeviceGetCudaComputeCapability gpu%d", gpu->n);
}

typedef struct {
    char bus_id_legacy[16];
    unsigned domain, bus, device, pci_device_id, pci_subsystem_id;
    char bus_id[32];
} Pci;

int nvmlDeviceGetPciInfo_v3(const Gpu *gpu, Pci *pci)
{
    *pci = (Pci){.device = FIRST_SLOT + gpu->n, .pci_device_id = 0x233510de, .pci_subsystem_id = 0x18bf10de};
    snprintf(pci->bus_id_legacy, sizeof pci->bus_id_legacy, "0000:00:%02X.0", pci->device);
    snprintf(pci->bus_id, sizeof pci->bus_id, "00000000:00:%02X.0", pci->device);
    return fate(NULL, "nvmlDeviceGetPciInfo_v3 gpu%d", gpu->n);
}

static const unsigned long long RESERVED = 644939776;

/* Bytes that a GPU has: an H200's, or what the plan says (MiB). */
static unsigned long long total_of(const Gpu *gpu)
{
    unsigned mib = TOTAL_MIB;
    fate(&mib, "total gpu%d", gpu->n);
    return (unsigned long long)mib << 20;
}

typedef struct {
    unsigned long long total, free, used;
} Memory;

/* Bytes that are free: those that no process has, of all or of what the plan gives this GPU (MiB). */
static unsigned long long free_on(const Gpu *gpu)
{
    unsigned has_mib = ~0U;
    fate(&has_mib, "memory gpu%d", gpu->n);
    unsigned long long has = has_mib == ~0U ? total_of(gpu) - RESERVED : (unsigned long long)has_mib << 20, used = in_use(gpu->n);
    return used < has ? has - used : 0;
}

int nvmlDeviceGetMemoryInfo(const Gpu *gpu, Memory *memory)
{
    *memory = (Memory){total_of(gpu), free_on(gpu), total_of(gpu) - free_on(gpu)};
    return fate(NULL, "nvmlDeviceGetMemoryInfo gpu%d", gpu->n);
}

#if MAJOR >= 510
typedef struct {
    unsigned version;
    unsigned long long total, reserved, free, used;
} MemoryV2;

int nvmlDeviceGetMemoryInfo_v2(const Gpu *gpu, MemoryV2 *memory)
{
    *memory = (MemoryV2){
        memory->version, total_of(gpu), total_of(gpu) - free_on(gpu) - in_use(gpu->n), free_on(gpu), in_use(gpu->n)};
    return fate(NULL, "nvmlDeviceGetMemoryInfo_v2 gpu%d", gpu->n);
}
#endif

int nvmlDeviceGetMemoryAffinity(const Gpu *gpu, unsigned size, unsigned long *nodes, int scope)
{
    (void)scope;
    memset(nodes, 0, size * sizeof *nodes);
    nodes[0] = 1;
    return fate(NULL, "nvmlDeviceGetMemoryAffinity gpu%d", gpu->n);
}

#if MAJOR >= 545
typedef struct {
    unsigned version;
    unsigned char cluster_uuid[16];
    unsigned status, clique_id, state, health_mask;
} Fabric;

int nvmlDeviceGetGpuFabricInfoV(const Gpu *gpu, Fabric *fabric)
{
    *fabric = (Fabric){.version = fabric->version, .state = 3};
    return fate(&fabric->state, "nvmlDeviceGetGpuFabricInfoV gpu%d", gpu->n);
}
#endif

/* --- NVLink ----------------------------------------------------------------------------------------------- */

enum { COMMON_SPEED = 90, LINK_COUNT = 91, SENT_KIB = 138, RECEIVED_KIB = 139 };
enum { SPEED = 164, STATE = 165, LINK_VERSION = 166 };
enum { MB_PER_S = 26562, NVLINK_4 = 6, ACTIVE = 1, SWITCH = 2, UNSIGNED = 1, WIDE = 3 };

typedef struct {
    unsigned field, scope;
    long long timestamp, latency_us;
    unsigned type;
    int code;
    union {
        unsigned number;
        unsigned long long wide;
    } value;
} Field;

/* A driver has either the fields a link or the older common one. */
static int usual(unsigned field, unsigned *number)
{
    int by_link = MAJOR >= 525;
    switch (field) {
    case LINK_COUNT: return *number = LINKS, OK;
    case COMMON_SPEED: return *number = MB_PER_S, by_link ? NOT_SUPPORTED : OK;
    case SPEED: return *number = MB_PER_S, by_link ? OK : NOT_SUPPORTED;
    case STATE: return *number = ACTIVE, by_link ? OK : NOT_SUPPORTED;
    case LINK_VERSION: return *number = NVLINK_4, by_link ? OK : NOT_SUPPORTED;
    }
    return NOT_SUPPORTED;
}

/* What went over all links of a GPU, or over one of them: each carries as much as the others. */
static int throughput(const Gpu *gpu, Field *field)
{
    uint64_t *bytes = state(0) == NULL ? NULL : field->field == SENT_KIB ? state(0)->sent : state(0)->received;
    field->value.wide = bytes ? bytes[gpu->n] / 1024 / (field->scope < LINKS ? LINKS : 1) : 0;
    field->type = WIDE;
    return OK;
}

int nvmlDeviceGetFieldValues(const Gpu *gpu, int count, Field *fields)
{
    for (Field *field = fields; field < fields + count; field++) {
        field->value.wide = 0;
        field->type = UNSIGNED;
        int moves = field->field == SENT_KIB || field->field == RECEIVED_KIB;
        field->code = moves ? throughput(gpu, field) : usual(field->field, &field->value.number);
        int planned = fate(&field->value.number, "field %u gpu%d link%u", field->field, gpu->n, field->scope);
        field->code = planned ? planned : field->code;
    }
    return fate(NULL, "nvmlDeviceGetFieldValues gpu%d", gpu->n);
}

#define OF_LINK(call, usual) \
    int call(const Gpu *gpu, unsigned link, unsigned *number) \
    { \
        *number = usual; \
        return link < LINKS ? fate(number, #call " gpu%d link%u", gpu->n, link) : INVALID_ARGUMENT; \
    }

OF_LINK(nvmlDeviceGetNvLinkState, ACTIVE)
OF_LINK(nvmlDeviceGetNvLinkVersion, NVLINK_4)
OF_LINK(nvmlDeviceGetNvLinkRemoteDeviceType, SWITCH)

int nvmlDeviceGetNvLinkRemotePciInfo_v2(const Gpu *gpu, unsigned link, Pci *pci)
{
    *pci = (Pci){"FFFFFFF:FF:FF.0", ~0U, 255, 255, ~0U, 0, "FFFFFFFF:FF:FF.0"}; /* a switch that a VM does not see */
    return link < LINKS ? fate(NULL, "nvmlDeviceGetNvLinkRemotePciInfo_v2 gpu%d link%u", gpu->n, link)
                        : INVALID_ARGUMENT;
}

/* --- pairs ------------------------------------------------------------------------------------------------ */

int nvmlDeviceGetP2PStatus(const Gpu *one, const Gpu *other, int what, unsigned *status)
{
    *status = what == 4 ? 5 : 0; /* the proprietary way is not supported, all others are OK */
    return fate(status, "nvmlDeviceGetP2PStatus gpu%d gpu%d %d", one->n, other->n, what);
}

int nvmlDeviceGetTopologyCommonAncestor(const Gpu *one, const Gpu *other, unsigned *level)
{
    *level = 30; /* a PCIe host bridge */
    return fate(level, "nvmlDeviceGetTopologyCommonAncestor gpu%d gpu%d", one->n, other->n);
}

// The all-reduce of the trial in plain C++, to hold the trial's figure against: one process, all GPUs, out of place,
// 5 to warm up, then 20 in one go, five times. It prints what nccl-tests prints last, the bus bandwidth in GB/s.
//
//     NCCL=$(python3 -c 'import nvidia.nccl as n; print(list(n.__path__)[0])')
//     nvcc -O2 -I$NCCL/include benchmarks/reference/allreduce.cu -L$NCCL/lib -l:libnccl.so.2 -Xlinker -rpath=$NCCL/lib -o allreduce
//     ./allreduce [MIB]

#include <nccl.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <vector>

#define GOOD(call) \
    do { \
        int code = (call); \
        if (code) { \
            std::fprintf(stderr, "%s gave %d\n", #call, code); \
            return 1; \
        } \
    } while (0)

int main(int count, char **words)
{
    const size_t size = (count > 1 ? std::atoll(words[1]) : 1024) << 20;
    int gpus = 0;
    GOOD(cudaGetDeviceCount(&gpus));
    std::vector<ncclComm_t> ranks(gpus);
    std::vector<cudaStream_t> streams(gpus);
    std::vector<float *> from(gpus), to(gpus);
    for (int n = 0; n < gpus; n++) {
        GOOD(cudaSetDevice(n));
        GOOD(cudaStreamCreateWithFlags(&streams[n], cudaStreamNonBlocking));
        GOOD(cudaMalloc(&from[n], size));
        GOOD(cudaMalloc(&to[n], size));
        GOOD(cudaMemset(from[n], 0, size));
    }
    GOOD(ncclCommInitAll(ranks.data(), gpus, nullptr));
    auto run = [&](int times) {
        for (int i = 0; i < times; i++) {
            GOOD(ncclGroupStart());
            for (int n = 0; n < gpus; n++)
                GOOD(ncclAllReduce(from[n], to[n], size / sizeof(float), ncclFloat, ncclSum, ranks[n], streams[n]));
            GOOD(ncclGroupEnd());
        }
        for (int n = 0; n < gpus; n++)
            GOOD(cudaStreamSynchronize(streams[n]));
        return 0;
    };
    GOOD(run(5));
    std::vector<double> seconds;
    for (int round = 0; round < 5; round++) {
        auto start = std::chrono::steady_clock::now();
        GOOD(run(20));
        seconds.push_back(std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count() / 20);
    }
    std::sort(seconds.begin(), seconds.end());
    std::printf("# Avg bus bandwidth    : %.3f\n", size / seconds[2] * 2 * (gpus - 1) / gpus / 1e9);
    return 0;
}

// Calls of the CUDA toolkit, checked: an error says which call, where, and what it means.
#pragma once

#include "sd/core/error.hpp"

#include <cublasLt.h>
#include <cublas_v2.h>
#include <cuda_runtime.h>
#include <cudnn_graph.h>

#include <stdexcept>

SD_NAMESPACE_BEGIN

namespace cuda {

/// Throws std::runtime_error "file:line: call: words" for a failed call.
[[noreturn]] inline void fail(const char* call, const char* file, int line, const char* words) {
    throw std::runtime_error(text(file, ':', line, ": ", call, ": ", words));
}

inline void check(cudaError_t status, const char* call, const char* file, int line) {
    if (status != cudaSuccess) fail(call, file, line, cudaGetErrorString(status));
}
inline void check(cudnnStatus_t status, const char* call, const char* file, int line) {
    if (status != CUDNN_STATUS_SUCCESS) fail(call, file, line, cudnnGetErrorString(status));
}
inline void check(cublasStatus_t status, const char* call, const char* file, int line) {
    if (status != CUBLAS_STATUS_SUCCESS) fail(call, file, line, cublasGetStatusString(status));
}

}  // namespace cuda

SD_NAMESPACE_END

/// Calls a function of CUDA, cuDNN, cuBLAS or NCCL and throws std::runtime_error, with call, file and line, if it fails.
#define SD_CUDA_CHECK(call) ::sd::cuda::check((call), #call, __FILE__, __LINE__)

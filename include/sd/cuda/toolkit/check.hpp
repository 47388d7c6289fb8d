// Calls of the CUDA toolkit, checked: an error says which call, where, and what it means.
#pragma once

#include "sd/core/error.hpp"

#include <cublasLt.h>
#include <cublas_v2.h>
#include <cuda_runtime.h>
#include <cudnn_graph.h>

#include <iostream>
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

/// For calls that give something back where nothing may be thrown, such as in destructors: false, and a line on the
/// standard error stream, if one failed. A runtime that has ended before the program's last objects is no failure.
inline bool report(cudaError_t status, const char* call) noexcept {
    if (status == cudaSuccess) return true;
    if (status == cudaErrorCudartUnloading) return false;
    try {
        std::cerr << "sd::Cuda: " << call << ": " << cudaGetErrorString(status) << std::endl;
    } catch (...) {  // there is nobody left to tell
    }
    return false;
}

}  // namespace cuda

SD_NAMESPACE_END

/// Calls a function of CUDA, cuDNN, cuBLAS or NCCL and throws std::runtime_error, with call, file and line, if it fails.
#define SD_CUDA_CHECK(call) ::sd::cuda::check((call), #call, __FILE__, __LINE__)

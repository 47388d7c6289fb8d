// Calls of the CUDA toolkit, checked: an error says which call, where, and what it means.
#pragma once

#include "sd/core/error.hpp"

#include <cublasLt.h>
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

/// What a library says of a failed call; nullptr of one that has not failed.
inline const char* words_of(cudaError_t status) { return status == cudaSuccess ? nullptr : cudaGetErrorString(status); }
inline const char* words_of(cudnnStatus_t status) {
    return status == CUDNN_STATUS_SUCCESS ? nullptr : cudnnGetErrorString(status);
}
inline const char* words_of(cublasStatus_t status) {
    return status == CUBLAS_STATUS_SUCCESS ? nullptr : cublasLtGetStatusString(status);
}

/// Throws if there are words. CUDA keeps the last error: it is taken back, or the next launch would tell of it.
inline void check(const char* words, const char* call, const char* file, int line) {
    if (words == nullptr) return;
    (void)cudaGetLastError();
    fail(call, file, line, words);
}

/// For calls where nothing may be thrown, such as in destructors: false, and a line "file:line: call: words" on the
/// standard error stream, if one failed.
inline bool report(const char* words, const char* call, const char* file, int line) noexcept {
    if (words == nullptr) return true;
    (void)cudaGetLastError();
    try {
        std::cerr << text(file, ':', line, ": ", call, ": ", words, '\n') << std::flush;
    } catch (...) {  // there is nobody left to tell
    }
    return false;
}

}  // namespace cuda

SD_NAMESPACE_END

/// Calls a function of CUDA, cuDNN, cuBLAS or NCCL and throws std::runtime_error, with call, file and line, if it
/// fails.
#define SD_CUDA_CHECK(call) ::sd::cuda::check(::sd::cuda::words_of(call), #call, __FILE__, __LINE__)

/// The same where nothing may be thrown: tells the standard error stream instead, and is false.
#define SD_CUDA_REPORT(call) ::sd::cuda::report(::sd::cuda::words_of(call), #call, __FILE__, __LINE__)

// The GPU's fully connected layers in float and bfloat16: cuBLASLt's products.
#pragma once

#include "sd/device/linear.hpp"
#include "sd/cuda/device.hpp"

#include <cstdint>
#include <memory>
#include <type_traits>
#include <utility>

SD_NAMESPACE_BEGIN

namespace cuda {

/// y(n, o) + bias(o), for an element of y.
template <class A>
struct PlusBias {
    const A* bias;
    Index outputs;
    [[nodiscard]] SD_HOST_DEVICE A operator()(Index i, const A& y) const { return y + bias[i % outputs]; }
};

/// A matrix as cuBLASLt sees it: columns one after the other, so a row-major (r, c) matrix is a (c, r) one to it.
class MatrixLayout {
public:
    MatrixLayout(cudaDataType_t type, Index rows, Index columns) {
        SD_CUDA_CHECK(cublasLtMatrixLayoutCreate(&layout_, type, static_cast<std::uint64_t>(rows),
                                                 static_cast<std::uint64_t>(columns), rows));
    }
    ~MatrixLayout() { SD_CUDA_REPORT(cublasLtMatrixLayoutDestroy(layout_)); }
    MatrixLayout(const MatrixLayout&) = delete;
    MatrixLayout& operator=(const MatrixLayout&) = delete;
    [[nodiscard]] cublasLtMatrixLayout_t get() const { return layout_; }

private:
    cublasLtMatrixLayout_t layout_ = nullptr;
};

/// cuBLASLt on the runtime's stream.
class Cublas {
public:
    /// Throws std::runtime_error if cuBLASLt does not start.
    static Cublas& instance() {
        static Cublas* cublas = new Cublas;
        return *cublas;
    }

    /// An operand: elements, and whether its (rows, columns) matrix is taken transposed.
    struct Operand {
        const void* elements;
        cudaDataType_t type;
        Index rows, columns;
        bool transposed;
    };

    /// result (rows, columns) = a b in cuBLASLt's order, sums in float. The algorithm is the heuristic's first, without
    /// sums in more than one order.
    void multiply(const Operand& a, const Operand& b, void* result, cudaDataType_t type, Index rows, Index columns) {
        const bool tf32 = a.type == CUDA_R_32F && Runtime::instance().float_math == FloatMath::tf32;
        cublasLtMatmulDesc_t product = nullptr;
        SD_CUDA_CHECK(
            cublasLtMatmulDescCreate(&product, tf32 ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F, CUDA_R_32F));
        const std::unique_ptr<std::remove_pointer_t<cublasLtMatmulDesc_t>, DestroyProduct> owner(product);
        set_transposed(product, CUBLASLT_MATMUL_DESC_TRANSA, a.transposed);
        set_transposed(product, CUBLASLT_MATMUL_DESC_TRANSB, b.transposed);
        const MatrixLayout a_layout(a.type, a.rows, a.columns);
        const MatrixLayout b_layout(b.type, b.rows, b.columns);
        const MatrixLayout layout(type, rows, columns);
        cublasLtMatmulHeuristicResult_t choice{};
        int choices = 0;
        SD_CUDA_CHECK(cublasLtMatmulAlgoGetHeuristic(handle_, product, a_layout.get(), b_layout.get(), layout.get(),
                                                     layout.get(), preference_, 1, &choice, &choices));
        if (choices == 0) refuse("cuBLASLt", "algorithms for a product", 0, "at least one");
        const Workspace workspace(choice.workspaceSize);
        const float one = 1, zero = 0;
        SD_CUDA_CHECK(cublasLtMatmul(handle_, product, &one, a.elements, a_layout.get(), b.elements, b_layout.get(),
                                     &zero, result, layout.get(), result, layout.get(), &choice.algo, workspace.data(),
                                     choice.workspaceSize, Runtime::instance().stream()));
    }

private:
    struct DestroyProduct {
        void operator()(cublasLtMatmulDesc_t product) const { SD_CUDA_REPORT(cublasLtMatmulDescDestroy(product)); }
    };

    Cublas() {
        (void)Runtime::instance();  // for its word on missing devices
        SD_CUDA_CHECK(cublasLtCreate(&handle_));
        SD_CUDA_CHECK(cublasLtMatmulPreferenceCreate(&preference_));
        const std::uint64_t most = std::uint64_t{32} << 20;
        SD_CUDA_CHECK(cublasLtMatmulPreferenceSetAttribute(preference_, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &most,
                                                           sizeof(most)));
        const std::uint32_t no_atomics = CUBLASLT_REDUCTION_SCHEME_MASK & ~CUBLASLT_REDUCTION_SCHEME_INPLACE;
        SD_CUDA_CHECK(cublasLtMatmulPreferenceSetAttribute(preference_, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
                                                           &no_atomics, sizeof(no_atomics)));
    }

    static void set_transposed(cublasLtMatmulDesc_t product, cublasLtMatmulDescAttributes_t operand, bool transposed) {
        const cublasOperation_t operation = transposed ? CUBLAS_OP_T : CUBLAS_OP_N;
        SD_CUDA_CHECK(cublasLtMatmulDescSetAttribute(product, operand, &operation, sizeof(operation)));
    }

    cublasLtHandle_t handle_ = nullptr;
    cublasLtMatmulPreference_t preference_ = nullptr;
};

/// The layer's products by cuBLASLt.
template <class T>
struct CublasLinear {
    using A = accumulate_t<T>;
    static constexpr cudaDataType_t type = std::is_same_v<T, A> ? CUDA_R_32F : CUDA_R_16BF;

    static void forward(const Tensor<T, Cuda>& x, const Tensor<A, Cuda>& weight, const Tensor<A, Cuda>& bias,
                        Tensor<T, Cuda>& y) {
        const Index samples = x.extent(0), inputs = x.extent(1), outputs = y.extent(1);
        const Tensor<T, Cuda> w = converted<T>(weight);
        auto product = Tensor<A, Cuda>::empty(y.shape());  // not y: bfloat16 is rounded once, after the bias
        Cublas::instance().multiply({w.data(), type, inputs, outputs, true}, {x.data(), type, inputs, samples, false},
                                    product.data(), CUDA_R_32F, outputs, samples);
        launch_map<Cuda>(PlusBias<A>{bias.data(), outputs}, y.size(), y.data(), std::as_const(product).data());
    }
    static void by_input(const Tensor<T, Cuda>& dy, const Tensor<A, Cuda>& weight, Tensor<T, Cuda>& dx) {
        const Index samples = dy.extent(0), inputs = dx.extent(1), outputs = dy.extent(1);
        const Tensor<T, Cuda> w = converted<T>(weight);
        Cublas::instance().multiply({w.data(), type, inputs, outputs, false},
                                    {dy.data(), type, outputs, samples, false}, dx.data(), type, inputs, samples);
    }
    static void by_weight(const Tensor<T, Cuda>& dy, const Tensor<T, Cuda>& x, Tensor<A, Cuda>& dweight) {
        const Index samples = dy.extent(0), inputs = x.extent(1), outputs = dy.extent(1);
        Cublas::instance().multiply({x.data(), type, inputs, samples, false}, {dy.data(), type, outputs, samples, true},
                                    dweight.data(), CUDA_R_32F, inputs, outputs);
    }
};

template <>
struct LinearEngine<float, Cuda> : CublasLinear<float> {};
template <>
struct LinearEngine<bfloat16, Cuda> : CublasLinear<bfloat16> {};

}  // namespace cuda

SD_NAMESPACE_END

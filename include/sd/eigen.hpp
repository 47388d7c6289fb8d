// Into Eigen and out of it. Opt-in, not in sd.hpp: Eigen's tensor module is slow to compile.
//
// A view has the tensor's elements, which must outlive it; tensor_from copies.
#pragma once

#include "sd/core/tensor.hpp"

#include <Eigen/Core>
#include <unsupported/Eigen/CXX11/Tensor>

#include <algorithm>
#include <array>
#include <cstddef>

SD_NAMESPACE_BEGIN

/// A matrix of a tensor's layout.
template <class T>
using EigenMatrix = Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
/// An Eigen tensor of a tensor's layout.
template <class T, int rank>
using EigenTensor = Eigen::Tensor<T, rank, Eigen::RowMajor, Index>;

namespace detail {

inline std::array<Index, 2> matrix_extents(const Shape& shape) {
    const Index columns = shape.rank() == 0 ? 1 : shape[shape.rank() - 1];
    return {columns == 0 ? 0 : shape.size() / columns, columns};
}

template <int rank>
std::array<Index, static_cast<std::size_t>(rank)> tensor_extents(const Shape& shape) {
    expect_rank("as_eigen", "the tensor", shape, rank);
    std::array<Index, static_cast<std::size_t>(rank)> extents{};
    std::copy(shape.begin(), shape.end(), extents.begin());
    return extents;
}

}  // namespace detail

/// The elements as a matrix: the last dimension gives the columns, all others the rows.
template <class T>
[[nodiscard]] Eigen::Map<EigenMatrix<T>> as_eigen(Tensor<T>& x) {
    const auto [rows, columns] = detail::matrix_extents(x.shape());
    return {x.data(), rows, columns};
}
/// The same, read only.
template <class T>
[[nodiscard]] Eigen::Map<const EigenMatrix<T>> as_eigen(const Tensor<T>& x) {
    const auto [rows, columns] = detail::matrix_extents(x.shape());
    return {x.data(), rows, columns};
}

/// The elements as an Eigen tensor, as_eigen<4>(x). Throws std::invalid_argument if x has another rank.
template <int rank, class T>
[[nodiscard]] Eigen::TensorMap<EigenTensor<T, rank>> as_eigen(Tensor<T>& x) {
    return {x.data(), detail::tensor_extents<rank>(x.shape())};
}
/// The same, read only.
template <int rank, class T>
[[nodiscard]] Eigen::TensorMap<const EigenTensor<T, rank>> as_eigen(const Tensor<T>& x) {
    return {x.data(), detail::tensor_extents<rank>(x.shape())};
}

/// A tensor (rows, columns) with the elements of a matrix or of an expression of matrices.
template <class Derived>
[[nodiscard]] Tensor<typename Derived::Scalar> tensor_from(const Eigen::MatrixBase<Derived>& matrix) {
    auto x = Tensor<typename Derived::Scalar>::empty({matrix.rows(), matrix.cols()});
    as_eigen(x).noalias() = matrix;
    return x;
}
/// The same from an array.
template <class Derived>
[[nodiscard]] Tensor<typename Derived::Scalar> tensor_from(const Eigen::ArrayBase<Derived>& array) {
    return tensor_from(array.matrix());
}

/// A tensor with the extents and elements of an Eigen tensor of either layout: x(i, j) is tensor(i, j).
template <class T, int rank, int options, class EigenIndex>
[[nodiscard]] Tensor<T> tensor_from(const Eigen::Tensor<T, rank, options, EigenIndex>& tensor) {
    const auto& extents = tensor.dimensions();
    auto x = Tensor<T>::empty(Shape(extents.begin(), extents.end()));
    auto elements = as_eigen<rank>(x);
    if constexpr (int(Eigen::Tensor<T, rank, options, EigenIndex>::Layout) == Eigen::RowMajor) {
        elements = tensor;
    } else {
        std::array<int, static_cast<std::size_t>(rank)> reversed{};
        for (std::size_t i = 0; i < reversed.size(); ++i) reversed[i] = rank - 1 - static_cast<int>(i);
        elements = tensor.swap_layout().shuffle(reversed);  // the former reverses the dimensions
    }
    return x;
}

SD_NAMESPACE_END

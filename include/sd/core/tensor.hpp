// A contiguous tensor as a handle on shared storage.
//
// Images are stored NHWC, channels contiguous:
//
//     offset(n, h, w, c) = ((n * H + h) * W + w) * C + c
//
// so a pixel is a row of C channels, a sample is one slab of H * W * C elements, and a 1x1 convolution is the product
// of an (N*H*W, C) matrix with the weights.
#pragma once

#include "sd/core/storage.hpp"

#include <array>
#include <cstddef>
#include <initializer_list>
#include <stdexcept>
#include <string>
#include <type_traits>

SD_NAMESPACE_BEGIN

/// The type in which parameters, statistics and sums of T are kept.
template <class T>
struct Accumulate {
    using type = T;  ///< float for narrower floating-point types, else T
};
/// The type of sums, statistics and parameters of tensors of T: float for narrower floating-point types, else T.
template <class T>
using accumulate_t = typename Accumulate<T>::type;

/// A contiguous tensor of at most four dimensions. Copies are handles on the same elements; clone() copies the
/// elements. A default-constructed tensor is undefined: it has no elements and converts to false. T: float, double or
/// any default-constructible type with the arithmetic of a number. Single elements can be had on the CPU alone;
/// to_host() brings those of another device.
template <class T, class Device = Cpu>
class Tensor {
public:
    using value_type = T;
    using device_type = Device;
    /// Whether the elements are in the CPU's memory.
    static constexpr bool on_processor = Device::in_cpu_memory;

    Tensor() = default;

    /// A tensor of zeros.
    explicit Tensor(const Shape& shape) : Tensor(empty(shape)) { fill(T(0)); }

    /// A tensor that holds a copy of the values, row-major. Throws if their number is not shape.size().
    Tensor(const Shape& shape, std::initializer_list<T> values) : Tensor(empty(shape)) {
        if (static_cast<Index>(values.size()) != size()) {
            refuse("Tensor", "number of values", values.size(), text(size(), " for shape ", shape));
        }
        write(values.begin());
    }

    /// A tensor whose elements are not set; whoever asks for it writes every one.
    [[nodiscard]] static Tensor empty(const Shape& shape) { return empty(shape, shape.size()); }

    /// The same in memory for `room` elements, shape.size() or more: see in_room().
    [[nodiscard]] static Tensor empty(const Shape& shape, Index room) {
        if (room < shape.size()) refuse("Tensor::empty", "room", room, text(shape.size(), " elements or more"));
        Tensor tensor;
        tensor.storage_ = Storage<T, Device>(room);
        tensor.room_ = room;
        tensor.shape_ = shape;
        tensor.defined_ = true;
        return tensor;
    }

    /// A tensor whose elements all have the value.
    [[nodiscard]] static Tensor full(const Shape& shape, const T& value) {
        Tensor tensor = empty(shape);
        tensor.fill(value);
        return tensor;
    }

    /// False for an undefined tensor.
    [[nodiscard]] explicit operator bool() const { return defined_; }
    /// The extents.
    [[nodiscard]] const Shape& shape() const { return shape_; }
    /// The number of dimensions.
    [[nodiscard]] Index rank() const { return shape_.rank(); }
    /// The extent of one dimension, 0 to rank() - 1.
    [[nodiscard]] Index extent(Index dimension) const { return shape_[dimension]; }
    /// The number of elements; 0 if undefined.
    [[nodiscard]] Index size() const { return defined_ ? shape_.size() : 0; }

    /// The elements in row-major order; nullptr if there are none.
    [[nodiscard]] T* data() { return storage_.data(); }
    /// The elements in row-major order; nullptr if there are none.
    [[nodiscard]] const T* data() const { return storage_.data(); }
    /// The first element.
    [[nodiscard]] T* begin() requires on_processor { return data(); }
    /// Past the last element.
    [[nodiscard]] T* end() requires on_processor { return data() + size(); }
    /// The first element.
    [[nodiscard]] const T* begin() const requires on_processor { return data(); }
    /// Past the last element.
    [[nodiscard]] const T* end() const requires on_processor { return data() + size(); }

    /// Element by its indices, one a dimension. Checked in debug builds: throws std::out_of_range.
    template <class... I>
    requires on_processor [[nodiscard]] T& operator()(I... indices) { return data()[offset(indices...)]; }
    /// Element by its indices, read only.
    template <class... I>
    requires on_processor [[nodiscard]] const T& operator()(I... indices) const { return data()[offset(indices...)]; }

    /// A tensor of its own with the same elements.
    [[nodiscard]] Tensor clone() const {
        if (!defined_) return {};
        Tensor copy = empty(shape_);
        copy.storage_.copy_from(storage_);
        return copy;
    }

    /// Copies size() elements, row-major, from the CPU's memory.
    void write(const T* elements) { storage_.write(elements, size()); }
    /// Copies all elements, row-major, to the CPU's memory.
    void read(T* elements) const { storage_.read(elements, size()); }

    /// The same elements under another shape of the same size.
    [[nodiscard]] Tensor reshape(const Shape& shape) const {
        if (shape.size() != size()) refuse("Tensor::reshape", "shape", shape, text(size(), " elements"));
        Tensor view = *this;
        view.shape_ = shape;
        return view;
    }

    /// How many elements its memory has room for: size(), unless it was made with more.
    [[nodiscard]] Index room() const { return room_; }
    /// The memory from the first element on under a shape of another size, up to room().
    [[nodiscard]] Tensor in_room(const Shape& shape) const {
        if (shape.size() > room_) refuse("Tensor::in_room", "shape", shape, text(room_, " elements at most"));
        Tensor view = *this;
        view.shape_ = shape;
        return view;
    }

    /// Sets every element, and what its memory has room for.
    void fill(const T& value) { storage_.fill(value); }

    /// True if both are handles on the same elements.
    [[nodiscard]] bool shares_storage_with(const Tensor& other) const { return data() == other.data(); }

    /// True if no other tensor is a handle on the elements.
    [[nodiscard]] bool is_only_handle() const { return storage_.is_only_reference(); }

private:
    template <class... I>
    [[nodiscard]] Index offset(I... indices) const {
        static_assert(sizeof...(I) <= static_cast<std::size_t>(Shape::max_rank));
        const std::array<Index, sizeof...(I)> at{static_cast<Index>(indices)...};
#if SD_CHECK_BOUNDS
        check_bounds(at.data(), static_cast<Index>(at.size()));
#endif
        Index result = 0;
        const Index* extent = shape_.begin();
        for (const Index i : at) result = result * *extent++ + i;
        return result;
    }

    void check_bounds(const Index* at, Index count) const {
        bool inside = defined_ && count == rank();
        for (Index i = 0; inside && i < count; ++i) inside = at[i] >= 0 && at[i] < shape_[i];
        if (inside) return;
        std::string indices;
        for (Index i = 0; i < count; ++i) indices += text(i ? ", " : "", at[i]);
        throw std::out_of_range(text("Tensor: index: got (", indices, "), expected inside ", shape_));
    }

    Storage<T, Device> storage_;
    Index room_ = 0;
    Shape shape_;
    bool defined_ = false;
};

/// The same elements on a device: a copy there, or the tensor itself if the device is the CPU.
template <class Device, class T>
[[nodiscard]] Tensor<T, Device> to_device(const Tensor<T>& x) {
    if constexpr (std::is_same_v<Tensor<T, Device>, Tensor<T>>) {
        return x;
    } else {
        if (!x) return {};
        auto copy = Tensor<T, Device>::empty(x.shape());
        copy.write(x.data());
        return copy;
    }
}

/// The same elements on the CPU: a copy, or the tensor itself if it is there.
template <class T, class Device>
[[nodiscard]] Tensor<T> to_host(const Tensor<T, Device>& x) {
    if constexpr (std::is_same_v<Tensor<T, Device>, Tensor<T>>) {
        return x;
    } else {
        if (!x) return {};
        auto copy = Tensor<T>::empty(x.shape());
        x.read(copy.data());
        return copy;
    }
}

/// The same elements on the CPU, of a type to calculate with. The CPU's are.
template <class T>
[[nodiscard]] const Tensor<T>& to_host_numbers(const Tensor<T>& x) {
    return x;
}

SD_NAMESPACE_END

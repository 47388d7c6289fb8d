// What a convolution does with the sums of a tile on their way out: store them, and gather on the way what the layer
// before or behind needs. A closed choice:
//
//     Store                forward and by input, nothing else
//     StoreWithMoments     forward in training: count, mean and squared deviations for the batch norm that follows
//     StoreActivated       forward in evaluation: batch norm folded into weights and shift, then the activation
//     StoreJoined          the same at the end of a residual branch: the shortcut added before the activation; and by
//                          input at its start: the shortcut's gradient added
//     StoreWithSums        by input in training: the gradient before the activation of the batch norm before, and the
//                          sums of that norm's backward
//
// Each is made once for a product. Each piece is a task, which adds the tiles of all panels of columns; what tasks gather
// is merged in their order, so the bits are the same for any number of threads. Sums come in the type that they were
// computed in; what is gathered is gathered of the values as they are stored.
#pragma once

#include "sd/core/moments.hpp"
#include "sd/core/parallel.hpp"
#include "sd/core/pending_gradient.hpp"
#include "sd/cpu/batch_norm.hpp"
#include "sd/cpu/target.hpp"

#include <algorithm>

SD_NAMESPACE_BEGIN

namespace cpu {

/// The sums of a tile and where they go: point r, column c to target[element + r pixel_stride + c].
template <class T>
struct TileResult {
    const T* sums;          ///< (points, width)
    Index width;            ///< of the tile, a multiple of lanes
    Index points, columns;  ///< that are to be stored
    Index column;           ///< the first one's number among all columns of the product
    Index element, pixel_stride;

    /// The sums of a point's neighbouring vectors of columns.
    template <Index vectors>
    [[gnu::always_inline]] void load_sums(Index r, Index c, Vector<T> (&values)[vectors]) const {
        for (Index v = 0; v < vectors; ++v) values[v] = load(sums + r * width + c + v * lanes<T>);
    }
    [[nodiscard]] Index at(Index r, Index c) const { return element + r * pixel_stride + c; }
};

/// Numbers a column, filled up with zeros to whole vectors.
template <class T>
[[nodiscard]] Tensor<T> padded(const T* values, Index columns) {
    Tensor<T> result(Shape{round_up(columns, lanes<T>)});
    std::copy(values, values + columns, result.data());
    return result;
}

/// The neighbouring vectors at an address.
template <class T, Index count>
[[gnu::always_inline]] inline void load_all(const T* from, Vector<T> (&values)[count]) {
    for (Index v = 0; v < count; ++v) values[v] = load(from + v * lanes<T>);
}

/// Stores neighbouring vectors of a point; `count` lanes of a single one.
template <class T, Index vectors, class Count>
[[gnu::always_inline]] inline void put(const Target<T>& target, const Vector<T> (&values)[vectors], Index element,
                                       Count count) {
    if constexpr (vectors == 1) {
        target.put(values[0], element, count);
    } else {
        target.put(values, element);
    }
}

/// What products know of an epilogue: they are compiled once for all of them, and a call for a tile costs nothing beside
/// its sums. Tasks run at the same time; the tiles of one come one after the other.
template <class T>
class Epilogue {
public:
    /// Before any task: how many there are.
    virtual void reserve(Index) {}
    /// Asks for what add() of such a tile will read.
    virtual void ask_for(const TileResult<accumulate_t<T>>&) const {}
    /// Takes a tile of a task.
    virtual void add(Index task, const TileResult<accumulate_t<T>>& tile) = 0;

protected:
    ~Epilogue() = default;
};

template <class T>
class Store final : public Epilogue<T> {
public:
    /// Of so many columns.
    Store(Tensor<T>& target, Index columns) : target_(target, columns) {}

    void add(Index, const TileResult<accumulate_t<T>>& tile) override {
        for_each_line<T>(tile.columns, [&](Index c, auto vectors, auto count) {
            for (Index r = 0; r < tile.points; ++r) {
                Vector<T> values[vectors];
                tile.load_sums(r, c, values);
                put(target_, values, tile.at(r, c), count);
            }
        });
    }

private:
    Target<T> target_;
};

template <class T>
class StoreActivated final : public Epilogue<T> {
    using A = accumulate_t<T>;

public:
    /// value = act(sum + shift); shift (columns).
    StoreActivated(Tensor<T>& target, const A* shift, Index columns, Activation activation)
        : target_(target, columns), shift_(padded(shift, columns)), activation_(activation) {}

    void add(Index, const TileResult<A>& tile) override {
        const Activation activation = activation_;
        if (has_own_path(activation)) {
            const bool relu = activation == Activation::relu;
            store_by(tile, [&](const Vector<T>& value) { return relu ? rectified<T>(value) : value; });
        } else {
            store_by(tile, [&](const Vector<T>& value) { return activated<A>(activation, value); });
        }
    }

private:
    template <class Act>
    [[gnu::always_inline]] void store_by(const TileResult<A>& tile, const Act& act) {
        for_each_line<T>(tile.columns, [&](Index c, auto vectors, auto count) {
            Vector<T> shift[vectors];
            load_all(shift_.data() + tile.column + c, shift);
            for (Index r = 0; r < tile.points; ++r) {
                Vector<T> values[vectors];
                tile.load_sums(r, c, values);
                for (Index v = 0; v < vectors; ++v) values[v] = act(values[v] + shift[v]);
                put(target_, values, tile.at(r, c), count);
            }
        });
    }

    Target<T> target_;
    Tensor<A> shift_;
    Activation activation_;
};

template <class T>
class StoreJoined final : public Epilogue<T> {
    using A = accumulate_t<T>;

public:
    /// value = act(sum + shift + shortcut), act ReLU or nothing; shift (columns), the shortcut's elements lie as the
    /// target's do.
    StoreJoined(Tensor<T>& target, const A* shift, Index columns, const Tensor<T>& shortcut, bool relu)
        : target_(target, columns), shift_(padded(shift, columns)), shortcut_(shortcut.data()), relu_(relu) {}

    void ask_for(const TileResult<A>& tile) const override {
        for (Index r = 0; r < tile.points; ++r) prefetch(shortcut_ + tile.at(r, 0));
    }
    void add(Index, const TileResult<A>& tile) override {
        const bool relu = relu_;
        for_each_line<T>(tile.columns, [&](Index c, auto vectors, auto count) {
            Vector<T> shift[vectors];
            load_all(shift_.data() + tile.column + c, shift);
            for (Index r = 0; r < tile.points; ++r) {
                Vector<T> values[vectors];
                tile.load_sums(r, c, values);
                for (Index v = 0; v < vectors; ++v) {
                    const Vector<T> shortcut = load_some(shortcut_ + tile.at(r, c) + v * lanes<T>, count);
                    values[v] = values[v] + shift[v] + shortcut;
                    if (relu) values[v] = rectified<T>(values[v]);
                }
                put(target_, values, tile.at(r, c), count);
            }
        });
    }

private:
    Target<T> target_;
    Tensor<A> shift_;
    const T* shortcut_;
    bool relu_;
};

/// Two numbers per column for every task, in memory of their own.
template <class T>
class TaskPairs {
public:
    explicit TaskPairs(Index columns) : columns_(columns), padded_(round_up(columns, lanes<T>)) {}

    void reserve(Index tasks) { pairs_ = Tensor<T>(Shape{tasks, 2, padded_}); }
    [[nodiscard]] Index columns() const { return columns_; }
    [[nodiscard]] Index tasks() const { return pairs_.extent(0); }
    [[nodiscard]] T* first(Index task) { return pairs_.data() + task * 2 * padded_; }
    [[nodiscard]] T* second(Index task) { return first(task) + padded_; }

private:
    Index columns_, padded_;
    Tensor<T> pairs_;
};

template <class T>
class StoreWithMoments final : public Epilogue<T> {
    using A = accumulate_t<T>;

public:
    StoreWithMoments(Tensor<T>& target, Index columns) : target_(target, columns), moments_(columns) {}

    void reserve(Index tasks) override {
        moments_.reserve(tasks);
        counts_ = Tensor<A>(Shape{tasks, round_up(quotient_up(moments_.columns(), lanes<T>), line)});
    }

    /// Merges the tile's statistics into those of the task. They are sums of differences from its first point, and of
    /// their squares: as the point is one of those, what they cancel is never much more than what they leave.
    void add(Index task, const TileResult<A>& tile) override {
        A* task_means = moments_.first(task) + tile.column;
        A* task_m2s = moments_.second(task) + tile.column;
        A& seen = counts_.data()[task * counts_.extent(1) + tile.column / lanes<T>];
        const A points = static_cast<A>(tile.points);
        const A share = A(1) / points;
        const A weight = points / (seen + points);
        const A both = seen * weight;
        for_each_line<T>(tile.columns, [&](Index c, auto vectors, auto count) {
            Vector<T> pivot[vectors], sum[vectors] = {}, squares[vectors] = {};
            tile.load_sums(0, c, pivot);
            for (Vector<T>& value : pivot) value = as_stored<T>(value);
            for (Index r = 0; r < tile.points; ++r) {
                Vector<T> values[vectors];
                tile.load_sums(r, c, values);
                put(target_, values, tile.at(r, c), count);
                for (Index v = 0; v < vectors; ++v) {
                    const Vector<T> difference = as_stored<T>(values[v]) - pivot[v];
                    sum[v] += difference;
                    squares[v] += difference * difference;
                }
            }
            for (Index v = 0; v < vectors; ++v) {
                const Vector<T> mean = pivot[v] + sum[v] * share;
                const Vector<T> m2 = rectified<T>(squares[v] - sum[v] * sum[v] * share);
                A* task_mean = task_means + c + v * lanes<T>;
                A* task_m2 = task_m2s + c + v * lanes<T>;
                const Vector<T> delta = mean - load(task_mean);
                store<A>(load(task_mean) + delta * weight, task_mean);
                store<A>(load(task_m2) + m2 + delta * delta * both, task_m2);
            }
        });
        seen += points;
    }

    /// Writes the statistics of the columns to channels [first_channel, first_channel + columns) of `moments`.
    void merge(Index first_channel, Moments<A>& moments) {
        parallel_ranges(moments_.columns(), 64, [&](Index first, Index last) {
            for (Index c = first; c < last; ++c) {
                double mean = 0;
                double m2 = 0;
                Index count = 0;
                for (Index t = 0; t < moments_.tasks(); ++t) {
                    const auto task_count = static_cast<Index>(counts_.data()[t * counts_.extent(1)]);
                    detail::merge_moments(count, mean, m2, task_count, static_cast<double>(moments_.first(t)[c]),
                                          static_cast<double>(moments_.second(t)[c]));
                    count += task_count;
                }
                moments.mean.data()[first_channel + c] = static_cast<A>(mean);
                moments.m2.data()[first_channel + c] = static_cast<A>(m2);
            }
        });
    }

private:
    static constexpr Index line = 64 / static_cast<Index>(sizeof(A));  // tasks do not write to the same one

    Target<T> target_;
    TaskPairs<A> moments_;
    Tensor<A> counts_;  ///< (task, first vector of a panel): points so far, of all panels the same in the end
};

template <class T>
class StoreWithSums final : public Epilogue<T> {
    using A = accumulate_t<T>;

public:
    /// The columns are the channels [first_channel, first_channel + columns) of `pass`.y, whose elements lie as the
    /// target's do.
    StoreWithSums(Tensor<T>& target, const BatchNormPass<T>& pass, Index first_channel, Index columns)
        : target_(target, columns),
          z_(pass.y.raw.data()),
          activation_(pass.y.activation),
          scale_(padded(pass.y.scale.data() + first_channel, columns)),
          shift_(padded(pass.y.shift.data() + first_channel, columns)),
          center_(padded(pass.mean.data() + first_channel, columns)),
          inverse_std_(pass.inverse_std.data() + first_channel),
          sums_(columns) {}

    void reserve(Index tasks) override { sums_.reserve(tasks); }

    void ask_for(const TileResult<A>& tile) const override {
        for (Index r = 0; r < tile.points; ++r) prefetch(z_ + tile.at(r, 0));
    }
    void add(Index task, const TileResult<A>& tile) override {
        const Activation activation = activation_;
        if (has_own_path(activation)) {
            const bool relu = activation == Activation::relu;
            add_by(task, tile,
                   [&](const Vector<T>& dy, const Vector<T>& v) { return relu ? gradient_before_relu<T>(dy, v) : dy; });
        } else {
            add_by(task, tile,
                   [&](const Vector<T>& dy, const Vector<T>& v) { return gradient_before<A>(activation, dy, v); });
        }
    }

    /// Adds the sums of the columns to channels [first_channel, first_channel + columns) of `sums`, but for those before
    /// `begin`, which another epilogue has added.
    void merge(Index first_channel, Index begin, BatchNormSums<A>& sums) {
        parallel_ranges(sums_.columns(), 64, [&](Index first, Index last) {
            for (Index c = std::max(first, begin - first_channel); c < last; ++c) {
                double dweight = 0;
                double dbias = 0;
                for (Index t = 0; t < sums_.tasks(); ++t) {
                    dweight += static_cast<double>(sums_.first(t)[c]);
                    dbias += static_cast<double>(sums_.second(t)[c]);
                }
                sums.dweight.data()[first_channel + c] +=
                    static_cast<A>(dweight * static_cast<double>(inverse_std_[c]));
                sums.dbias.data()[first_channel + c] += static_cast<A>(dbias);
            }
        });
    }

private:
    /// gradient(dy, v) is the gradient by v = scale z + shift of a gradient dy by act(v).
    template <class Gradient>
    [[gnu::always_inline]] void add_by(Index task, const TileResult<A>& tile, const Gradient& gradient) {
        A* task_dweight = sums_.first(task) + tile.column;
        A* task_dbias = sums_.second(task) + tile.column;
        for_each_line<T>(tile.columns, [&](Index c, auto vectors, auto count) {
            const Index column = tile.column + c;
            Vector<T> scale[vectors], shift[vectors], center[vectors], dweight[vectors], dbias[vectors];
            load_all(scale_.data() + column, scale);
            load_all(shift_.data() + column, shift);
            load_all(center_.data() + column, center);
            load_all(task_dweight + c, dweight);
            load_all(task_dbias + c, dbias);
            for (Index r = 0; r < tile.points; ++r) {
                Vector<T> values[vectors];
                tile.load_sums(r, c, values);
                for (Index v = 0; v < vectors; ++v) {
                    const Vector<T> z = load_some(z_ + tile.at(r, c) + v * lanes<T>, count);
                    values[v] = as_stored<T>(gradient(values[v], scale[v] * z + shift[v]));
                    dbias[v] += values[v];
                    dweight[v] += values[v] * (z - center[v]);
                }
                put(target_, values, tile.at(r, c), count);
            }
            store_vectors<A>(dweight, task_dweight + c);
            store_vectors<A>(dbias, task_dbias + c);
        });
    }

    Target<T> target_;
    const T* z_;
    Activation activation_;
    Tensor<A> scale_, shift_, center_;
    const A* inverse_std_;
    TaskPairs<A> sums_;
};

}  // namespace cpu

SD_NAMESPACE_END

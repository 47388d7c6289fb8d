// The product that forward and by-input share: it reads slabs of one image and writes pixels of another.
//
//     for each task (a sample, some rows of the lattice):                      in parallel
//         pack the slab that its points read                                   cache, once
//         for each panel of columns (V vectors of channels to write):          weights of the panel stay in the cache
//             for each tile of R neighbouring points:
//                 sums = over blocks of channels, taps, channels of the block  registers
//                 write the sums, and take their statistics if asked for
//
// Weights of a panel lie in the order in which a tile reads them: (block, tap, channel of the block, column).
#pragma once

#include "sd/core/moments.hpp"
#include "sd/core/parallel.hpp"
#include "sd/cpu/lattice.hpp"
#include "sd/cpu/slab.hpp"
#include "sd/cpu/tile.hpp"

#include <array>
#include <vector>

SD_NAMESPACE_BEGIN

namespace cpu {

/// A register tile: points and vectors of columns. All sums, a row of weights and one broadcast fit the registers.
struct TileShape {
    Index points, vectors;
};
inline constexpr std::array<TileShape, 6> tile_shapes =
    vector_registers == 32 ? std::array<TileShape, 6>{{{14, 2}, {7, 4}, {8, 2}, {16, 1}, {28, 1}, {4, 4}}}
                           : std::array<TileShape, 6>{{{6, 2}, {3, 4}, {4, 2}, {8, 1}, {12, 1}, {7, 1}}};

/// The tile that computes rows of `width` points and `columns` columns with the least idle work. A tile of few sums
/// waits for loads and for the latency of multiply-adds, which is counted as idle, too.
template <class T>
[[nodiscard]] std::size_t choose_tile(Index width, Index columns) {
    std::size_t best = 0;
    double least = 0;
    for (std::size_t i = 0; i < tile_shapes.size(); ++i) {
        const auto [points, vectors] = tile_shapes[i];
        const auto sums = static_cast<double>(points * vectors);
        const double loads = static_cast<double>(points + vectors) / sums;
        const double steps = static_cast<double>(quotient_up(width, points) * quotient_up(columns, vectors * lanes<T>));
        const double cost = steps * (sums * (1 + 0.1 * loads) + 1.5);
        if (i == 0 || cost < least) {
            best = i;
            least = cost;
        }
    }
    return best;
}

/// Weights in panels of `width` columns, zeros beyond the last column: (panel, block, tap, channel of the block,
/// column). weight_at(k, column, tap) gives the weight of depth channel k.
template <class T, class WeightAt>
[[nodiscard]] Tensor<T> pack_panels(Index channels, Index columns, Index taps, Index width, const WeightAt& weight_at) {
    const Index panels = quotient_up(columns, width);
    const Index panel_size = channels * taps * width;
    Tensor<T> packed = Tensor<T>::empty({panels, panel_size});
    parallel_for(panels, [&](Index panel) {
        T* target = packed.data() + panel * panel_size;
        const Index first = panel * width;
        const Index filled = std::min(width, columns - first);
        for (Index block = 0; block < channels; block += lanes<T>) {
            const Index depth = std::min(lanes<T>, channels - block);
            for (Index tap = 0; tap < taps; ++tap) {
                for (Index k = block; k < block + depth; ++k, target += width) {
                    for (Index c = 0; c < filled; ++c) target[c] = weight_at(k, first + c, tap);
                    std::fill(target + filled, target + width, T(0));
                }
            }
        }
    });
    return packed;
}

/// Statistics of the columns of a panel, merged tile by tile.
template <class T, Index vectors>
struct PanelMoments {
    Index count = 0;
    Vector<T> mean[vectors] = {};
    Vector<T> m2[vectors] = {};

    /// Takes in `valid` rows of sums.
    template <Index points>
    [[gnu::always_inline]] void add(const Vector<T> (&sum)[points][vectors], Index valid) {
        const T share = T(1) / static_cast<T>(valid);
        const T total = static_cast<T>(count + valid);
        const T weight = static_cast<T>(valid) / total;
        const T both = static_cast<T>(count) * weight;
#pragma GCC unroll 4
        for (Index v = 0; v < vectors; ++v) {
            Vector<T> tile_mean = sum[0][v];
#pragma GCC unroll 32
            for (Index r = 1; r < points; ++r) {
                if (r < valid) tile_mean += sum[r][v];
            }
            tile_mean *= share;
            Vector<T> tile_m2 = {};
#pragma GCC unroll 32
            for (Index r = 0; r < points; ++r) {
                if (r >= valid) continue;
                const Vector<T> difference = sum[r][v] - tile_mean;
                tile_m2 += difference * difference;
            }
            const Vector<T> delta = tile_mean - mean[v];
            mean[v] += delta * weight;
            m2[v] += tile_m2 + delta * delta * both;
        }
        count += valid;
    }
};

/// What a task computes of one panel: the slab it reads, the pixels it writes.
template <class T>
struct PanelTask {
    const T* slab;
    Index slab_columns, plane, channels;
    Index row_step, point_step;  ///< slab rows and columns between neighbouring points
    const Index* tap_offsets;    ///< elements from a point's place in the slab to what the tap reads
    Index taps;
    const T* weights;
    Index rows, width;  ///< lattice points
    T* target;          ///< first channel of the first point
    Index row_stride, pixel_stride, columns;
    T* moments;  ///< mean and m2 of each column, `moments_stride` apart, or nullptr
    Index moments_stride;
};

/// Runs all tiles of one panel. `step` is the distance between neighbouring points in the slab, 0 if only known at run
/// time.
template <class T, std::size_t shape, Index step>
void run_panel(const PanelTask<T>& task) {
    constexpr Index points = tile_shapes[shape].points;
    constexpr Index vectors = tile_shapes[shape].vectors;
    constexpr Index width = vectors * lanes<T>;
    const auto point_stride = [&] {
        if constexpr (step != 0) {
            return constant<step * lanes<T>>;
        } else {
            return task.point_step * lanes<T>;
        }
    }();
    PanelMoments<T, vectors> moments;
    for (Index i = 0; i < task.rows; ++i) {
        const T* slab_row = task.slab + i * task.row_step * task.slab_columns * lanes<T>;
        T* target_row = task.target + i * task.row_stride;
        for (Index j = 0; j < task.width; j += points) {
            Vector<T> sum[points][vectors] = {};
            const T* weights = task.weights;
            const T* point = slab_row + j * point_stride;
            for (Index first = 0; first < task.channels; first += lanes<T>, point += task.plane) {
                const Index depth = std::min(lanes<T>, task.channels - first);
                for (Index tap = 0; tap < task.taps; ++tap, weights += depth * width) {
                    multiply_add<points, vectors>(sum, depth, point + task.tap_offsets[tap], point_stride, constant<1>,
                                                  weights, constant<width>, constant<lanes<T>>);
                }
            }
            const Index valid = std::min(points, task.width - j);
            if (task.moments != nullptr) {
                if (valid == points) {
                    moments.add(sum, points);
                } else {
                    moments.add(sum, valid);
                }
            }
            T* target = target_row + j * task.pixel_stride;
#pragma GCC unroll 32
            for (Index r = 0; r < points; ++r) {
                if (r >= valid) break;
                if (task.columns == width) {
#pragma GCC unroll 4
                    for (Index v = 0; v < vectors; ++v) store(sum[r][v], target + v * lanes<T>);
                } else {
                    T row[width];
#pragma GCC unroll 4
                    for (Index v = 0; v < vectors; ++v) store(sum[r][v], row + v * lanes<T>);
                    std::copy(row, row + task.columns, target);
                }
                target += task.pixel_stride;
            }
        }
    }
    if (task.moments != nullptr) {
        T row[2][width];
        for (Index v = 0; v < vectors; ++v) {
            store(moments.mean[v], row[0] + v * lanes<T>);
            store(moments.m2[v], row[1] + v * lanes<T>);
        }
        std::copy(row[0], row[0] + task.columns, task.moments);
        std::copy(row[1], row[1] + task.columns, task.moments + task.moments_stride);
    }
}

template <class T>
using RunPanel = void (*)(const PanelTask<T>&);

/// run_panel for a tile and a step.
template <class T>
[[nodiscard]] RunPanel<T> find_run_panel(std::size_t shape, Index step) {
    static constexpr auto table = []<std::size_t... s>(std::index_sequence<s...>) {
        return std::array<std::array<RunPanel<T>, 3>, sizeof...(s)>{
            {{&run_panel<T, s, 0>, &run_panel<T, s, 1>, &run_panel<T, s, 2>}...}};
    }
    (std::make_index_sequence<tile_shapes.size()>{});
    return table[shape][static_cast<std::size_t>(step <= 2 ? step : 0)];
}

/// Pixels of a slab that with the weights of a panel stays in the second-level cache.
template <class T>
[[nodiscard]] Index slab_pixels(Index channels) {
    constexpr Index elements = Index{192} * 1024 / static_cast<Index>(sizeof(T));
    return std::max<Index>(elements / round_up(std::max<Index>(channels, 1), lanes<T>), 1);
}

/// Slab rows and columns between neighbouring points: those of the lattice, but a single tap's pixels are packed side
/// by side.
[[nodiscard]] inline Index slab_row_step(const Lattice& lattice) {
    return lattice.taps.size() == 1 ? 1 : lattice.row_step;
}
[[nodiscard]] inline Index slab_column_step(const Lattice& lattice) {
    return lattice.taps.size() == 1 ? 1 : lattice.column_step;
}

/// Some points of a lattice in one sample, and the slab that they read.
struct Piece {
    Index sample, first_row, first_column, rows, width;

    [[nodiscard]] SlabShape slab(const Lattice& lattice, Index first_channel, Index channels) const {
        const bool one_tap = lattice.taps.size() == 1;
        return {.sample = sample,
                .first_row = first_row * lattice.row_step + lattice.first_row(),
                .row_step = one_tap ? lattice.row_step : 1,
                .rows = (rows - 1) * slab_row_step(lattice) + 1 + lattice.last_row() - lattice.first_row(),
                .first_column = first_column * lattice.column_step + lattice.first_column(),
                .column_step = one_tap ? lattice.column_step : 1,
                .columns = (width - 1) * slab_column_step(lattice) + 1 + lattice.last_column() - lattice.first_column(),
                .first_channel = first_channel,
                .channels = channels};
    }
};

/// Elements from a point's place in a slab of `columns` columns to what each tap reads.
[[nodiscard]] inline std::vector<Index> tap_offsets(const Lattice& lattice, Index columns, Index lanes) {
    std::vector<Index> offsets;
    for (const Tap& tap : lattice.taps) {
        const Index row = tap.row_offset - lattice.first_row();
        const Index column = tap.column_offset - lattice.first_column();
        offsets.push_back((row * columns + column) * lanes);
    }
    return offsets;
}

/// How the points of a lattice are cut into pieces, by the problem's size alone.
struct Cut {
    Index rows_each, row_tasks, columns_each, column_tasks;

    /// Slabs of at most about `pixels` pixels; pieces of a row are multiples of `points`.
    static Cut of(const Lattice& lattice, Index pixels, Index points) {
        const Index row_step = slab_row_step(lattice);
        const Index column_step = slab_column_step(lattice);
        const Index halo_rows = lattice.last_row() - lattice.first_row();
        const Index halo_columns = lattice.last_column() - lattice.first_column();
        // Whole rows if a few of them fit, else pieces of one row.
        const Index whole = (lattice.width - 1) * column_step + 1 + halo_columns;
        Cut cut{1, 1, lattice.width, 1};
        if (whole * (halo_rows + row_step) <= pixels) {
            const Index most = (pixels / whole - halo_rows - 1) / row_step + 1;
            cut.row_tasks = quotient_up(lattice.height, std::clamp<Index>(most, 1, lattice.height));
            cut.rows_each = quotient_up(lattice.height, cut.row_tasks);
            cut.row_tasks = quotient_up(lattice.height, cut.rows_each);
        } else {
            const Index most = (pixels / (halo_rows + 1) - halo_columns) / column_step;
            cut.columns_each = std::min(lattice.width, std::max(points, most / points * points));
            cut.column_tasks = quotient_up(lattice.width, cut.columns_each);
            cut.row_tasks = lattice.height;
        }
        return cut;
    }

    [[nodiscard]] Index pieces_of_sample() const { return row_tasks * column_tasks; }
    [[nodiscard]] Piece piece(const Lattice& lattice, Index number) const {
        const Index i = number / column_tasks % row_tasks * rows_each;
        const Index j = number % column_tasks * columns_each;
        return {number / pieces_of_sample(), i, j, std::min(rows_each, lattice.height - i),
                std::min(columns_each, lattice.width - j)};
    }
};

}  // namespace cpu

SD_NAMESPACE_END

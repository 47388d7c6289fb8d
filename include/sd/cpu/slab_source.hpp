// What products know of the pixels that they pack, whatever these come from.
#pragma once

#include "sd/cpu/pair_lines.hpp"
#include "sd/cpu/slab.hpp"

#include <algorithm>
#include <array>
#include <type_traits>

SD_NAMESPACE_BEGIN

namespace cpu {

/// A source of slabs without its type, so that what reads slabs is compiled once for all sources. It refers to the source.
template <class T>
class SlabSource {
    using A = accumulate_t<T>;

public:
    /// Of a PendingSource or a GradientSource.
    template <class Source>
    explicit SlabSource(const Source& source)
        : source_(&source),
          view_(source.view()),
          tensors_(source.tensors()),
          pack_([](const void* that, const SlabShape& slab, A* target) {
              pack_slab<A>(*static_cast<const Source*>(that), slab, target);
          }) {
        if constexpr (std::is_same_v<T, bfloat16>) {
            pack_lines_ = [](const void* that, const SlabShape& slab, Index plane, bfloat16* target) {
                cpu::pack_lines(*static_cast<const Source*>(that), slab, plane, target);
            };
        }
    }

    [[nodiscard]] const ImageView& view() const { return view_; }
    [[nodiscard]] const Extents& extents() const { return view_.extents; }
    [[nodiscard]] const std::array<const T*, 2>& tensors() const { return tensors_; }
    /// Fills a slab, see pack_slab.
    void pack(const SlabShape& slab, A* target) const { pack_(source_, slab, target); }
    /// Fills lines, see cpu::pack_lines. For bfloat16 only.
    void pack_lines(const SlabShape& slab, Index plane, bfloat16* target) const {
        pack_lines_(source_, slab, plane, target);
    }

private:
    const void* source_;
    ImageView view_;
    std::array<const T*, 2> tensors_;
    void (*pack_)(const void*, const SlabShape&, A*);
    void (*pack_lines_)(const void*, const SlabShape&, Index, bfloat16*) = nullptr;
};

/// Asks for the part of an image that a slab reads, a few cache lines at a time, while something else is computed.
template <class T>
class SlabPrefetch {
public:
    /// In `calls` calls of advance(). Only whole pixels are asked for.
    SlabPrefetch(const SlabSource<T>& source, const SlabShape& slab, Index calls) : tensors_(source.tensors()) {
        const ImageView& image = source.view();
        const auto& [samples, height, width, channels] = image.extents;
        if (slab.first_channel != 0 || slab.channels != channels || calls == 0) return;
        const Index last_row = std::min(height - 1, slab.first_row + (slab.rows - 1) * slab.row_step);
        const Index last_column = std::min(width - 1, slab.first_column + (slab.columns - 1) * slab.column_step);
        const Index first_row = std::max<Index>(0, slab.first_row);
        const Index first_column = std::max<Index>(0, slab.first_column);
        next_ = image.element(slab.sample, first_row, first_column);
        end_ = image.element(slab.sample, last_row, last_column) + channels;
        each_ = quotient_up(quotient_up(end_ - next_, line), calls);
    }

    [[gnu::always_inline]] void advance() {
        for (Index i = 0; i < each_ && next_ < end_; ++i, next_ += line) prefetch_line(tensors_, next_);
    }

private:
    static constexpr Index line = 64 / static_cast<Index>(sizeof(T));

    std::array<const T*, 2> tensors_;
    Index next_ = 0, end_ = 0, each_ = 0;
};

}  // namespace cpu

SD_NAMESPACE_END

// Batch norm's statistics over all ranks. Every rank merges what all ranks gave, in rank order: all get the same bits.
#pragma once

#include "sd/core/communicator.hpp"
#include "sd/core/moments.hpp"

#include <cstring>

SD_NAMESPACE_BEGIN

/// The moments of the values of all ranks, of which `own` are this rank's; its count may be 0.
template <class A>
[[nodiscard]] Moments<A> merged_over_ranks(const Moments<A>& own, Communicator& communicator) {
    const Index channels = own.mean.size();
    const auto bytes_of_channels = static_cast<std::size_t>(channels) * sizeof(A);
    // a rank's message: count, mean, m2
    PooledVector<std::byte> message(sizeof(Index) + 2 * bytes_of_channels);
    std::memcpy(message.data(), &own.count, sizeof(Index));
    std::memcpy(message.data() + sizeof(Index), own.mean.data(), bytes_of_channels);
    std::memcpy(message.data() + sizeof(Index) + bytes_of_channels, own.m2.data(), bytes_of_channels);
    PooledVector<std::byte> messages(static_cast<std::size_t>(communicator.size()) * message.size());
    communicator.all_gather(std::span<const std::byte>(message), std::span(messages));

    Moments<A> merged{0, Tensor<A>(Shape{channels}), Tensor<A>(Shape{channels})};
    Moments<A> part{0, Tensor<A>::empty({channels}), Tensor<A>::empty({channels})};
    for (std::size_t at = 0; at < messages.size(); at += message.size()) {
        std::memcpy(&part.count, messages.data() + at, sizeof(Index));
        std::memcpy(part.mean.data(), messages.data() + at + sizeof(Index), bytes_of_channels);
        std::memcpy(part.m2.data(), messages.data() + at + sizeof(Index) + bytes_of_channels, bytes_of_channels);
        for (Index c = 0; c < channels; ++c) {
            detail::merge_moments(merged.count, merged.mean(c), merged.m2(c), part.count, part.mean(c), part.m2(c));
        }
        merged.count += part.count;
    }
    return merged;
}

/// The sums of batch norm's backward over the values of all ranks, times `share`.
template <class A>
[[nodiscard]] BatchNormSums<A> summed_over_ranks(const BatchNormSums<A>& own, Communicator& communicator,
                                                 double share) {
    const Index channels = own.dweight.size();
    Tensor<A> message = Tensor<A>::empty({2, channels});
    std::copy(own.dweight.begin(), own.dweight.end(), message.begin());
    std::copy(own.dbias.begin(), own.dbias.end(), message.begin() + channels);
    Tensor<A> messages = Tensor<A>::empty({communicator.size(), 2, channels});
    communicator.all_gather(std::span<const A>(message.begin(), message.end()),
                            std::span<A>(messages.begin(), messages.end()));
    BatchNormSums<A> sums{Tensor<A>(Shape{channels}), Tensor<A>(Shape{channels})};
    for (Index rank = 0; rank < communicator.size(); ++rank) {
        for (Index c = 0; c < channels; ++c) {
            sums.dweight(c) = sums.dweight(c) + messages(rank, 0, c);
            sums.dbias(c) = sums.dbias(c) + messages(rank, 1, c);
        }
    }
    for (Index c = 0; c < channels; ++c) {
        sums.dweight(c) = sums.dweight(c) * A(share);
        sums.dbias(c) = sums.dbias(c) * A(share);
    }
    return sums;
}

SD_NAMESPACE_END

// The communicator on NCCL: ranks with a GPU each. Programs link NCCL too.
//
// A sum gathers the numbers of all ranks and adds them in rank order, as a communicator promises. NCCL's own sums send
// less, but add in an order that depends on the number of bytes and on how the machines are wired.
#pragma once

#include "sd/core/communicator.hpp"
#include "sd/cuda/device.hpp"

#include <nccl.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <memory>
#include <span>
#include <stdexcept>
#include <type_traits>
#include <unistd.h>
#include <vector>

SD_NAMESPACE_BEGIN

namespace cuda {

inline const char* words_of(ncclResult_t status) {
    return status == ncclSuccess ? nullptr : ncclGetErrorString(status);
}

/// sum(i) = the sum of parts(rank, i) in rank order; the sum may begin at any element of a buffer.
template <class T>
struct SumOfRanks {
    const T* parts;  ///< (ranks, count)
    Index ranks, count;
    T* sum;
    SD_HOST_DEVICE void operator()(Index i) const {
        T all = parts[i];
        for (Index rank = 1; rank < ranks; ++rank) all += parts[rank * count + i];
        sum[i] = all;
    }
};

}  // namespace cuda

/// The ranks of an NCCL communicator. Numbers may be in the memory of the device or of the CPU; those of the
/// processor go by way of the device. All work is put on the runtime's stream, so a sum is finished for whatever is
/// started on the device after it.
class NcclCommunicator final : public Communicator {
public:
    /// Rank 0's identification, which every rank must get to know, such as by MPI or a file. Throws std::runtime_error
    /// if NCCL refuses.
    [[nodiscard]] static ncclUniqueId identification() {
        ncclUniqueId id;
        SD_CUDA_CHECK(ncclGetUniqueId(&id));
        return id;
    }

    /// To be made by all ranks together. Throws std::runtime_error if NCCL refuses.
    NcclCommunicator(const ncclUniqueId& id, int rank, int size)
        : stream_(cuda::Runtime::instance().stream()), rank_(rank), size_(size) {
        ncclComm_t communicator = nullptr;
        SD_CUDA_CHECK(ncclCommInitRank(&communicator, size, id, rank));
        communicator_.reset(communicator);
        is_one_machine_ = all_have_the_same_name();
        traffic_ = {};
    }

    [[nodiscard]] Index rank() const override { return rank_; }
    [[nodiscard]] Index size() const override { return size_; }
    [[nodiscard]] bool is_one_machine() const override { return is_one_machine_; }
    [[nodiscard]] Traffic traffic() const override { return traffic_; }

protected:
    void broadcast_bytes(std::span<std::byte> bytes) override {
        with_device_memory(bytes, true, [&](void* memory) {
            SD_CUDA_CHECK(ncclBroadcast(memory, memory, bytes.size(), ncclUint8, 0, communicator_.get(), stream_));
        });
        if (rank_ == 0) traffic_.bytes_sent += (size_ - 1) * static_cast<Index>(bytes.size());
    }

    void all_gather_bytes(std::span<const std::byte> own, std::span<std::byte> all) override {
        const std::span<std::byte> source(const_cast<std::byte*>(own.data()), own.size());
        with_device_memory(source, false, [&](const void* from) {
            with_device_memory(all, true, [&](void* to) {
                SD_CUDA_CHECK(ncclAllGather(from, to, own.size(), ncclUint8, communicator_.get(), stream_));
            });
        });
        traffic_.bytes_sent += (size_ - 1) * static_cast<Index>(own.size());
    }

    [[nodiscard]] std::unique_ptr<PendingSum> start_sum_of(std::span<float> numbers) override { return sum(numbers); }
    [[nodiscard]] std::unique_ptr<PendingSum> start_sum_of(std::span<double> numbers) override { return sum(numbers); }

private:
    struct Destroy {
        void operator()(ncclComm_t communicator) const { SD_CUDA_REPORT(ncclCommDestroy(communicator)); }
    };

    // Whether every rank's machine has this one's name.
    bool all_have_the_same_name() {
        std::array<char, 256> own{};
        if (::gethostname(own.data(), own.size() - 1) != 0) {
            throw std::runtime_error(text("NcclCommunicator: gethostname: ", std::strerror(errno)));
        }
        std::vector<char> all(own.size() * static_cast<std::size_t>(size_));
        all_gather(std::span<const char>(own), std::span(all));
        for (std::size_t rank = 0; rank < static_cast<std::size_t>(size_); ++rank) {
            if (!std::equal(own.begin(), own.end(), all.data() + rank * own.size())) return false;
        }
        return true;
    }

    template <class T>
    std::unique_ptr<PendingSum> sum(std::span<T> numbers) {
        const auto count = static_cast<Index>(numbers.size());
        auto parts = Tensor<T, Cuda>::empty({size_, count});
        with_device_memory(std::as_writable_bytes(numbers), true, [&](void* memory) {
            SD_CUDA_CHECK(
                ncclAllGather(memory, parts.data(), numbers.size_bytes(), ncclUint8, communicator_.get(), stream_));
            cuda::launch_each<Cuda>(count, cuda::SumOfRanks<T>{parts.data(), size_, count, static_cast<T*>(memory)});
        });
        traffic_.bytes_sent += (size_ - 1) * static_cast<Index>(numbers.size_bytes());
        return std::make_unique<PendingSum>();
    }

    // Calls use(memory) with the bytes on the device, and brings them back if they are the CPU's and `back`. The
    // processor's may be changed as soon as this returns.
    template <class Use>
    void with_device_memory(std::span<std::byte> bytes, bool back, const Use& use) {
        if (is_on_device(bytes)) {
            use(bytes.data());
            return;
        }
        const cuda::Workspace copy(bytes.size());
        SD_CUDA_CHECK(cudaMemcpyAsync(copy.data(), bytes.data(), bytes.size(), cudaMemcpyHostToDevice, stream_));
        use(copy.data());
        if (back) {
            SD_CUDA_CHECK(cudaMemcpyAsync(bytes.data(), copy.data(), bytes.size(), cudaMemcpyDeviceToHost, stream_));
        }
        SD_CUDA_CHECK(cudaStreamSynchronize(stream_));
    }

    // No bytes are on any device; their address may be null, of which CUDA tells nothing.
    static bool is_on_device(std::span<const std::byte> bytes) {
        if (bytes.empty()) return true;
        cudaPointerAttributes attributes{};
        SD_CUDA_CHECK(cudaPointerGetAttributes(&attributes, bytes.data()));
        return attributes.type == cudaMemoryTypeDevice;
    }

    std::unique_ptr<std::remove_pointer_t<ncclComm_t>, Destroy> communicator_;
    cudaStream_t stream_;
    int rank_;
    int size_;
    bool is_one_machine_ = true;
    Traffic traffic_;
};

SD_NAMESPACE_END

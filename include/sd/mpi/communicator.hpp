// The communicator on MPI. Programs link an MPI library, in CMake by sd::mpi; docs/distributed.md says how to run them.
#pragma once

#include "sd/mpi/sum.hpp"

#include <algorithm>
#include <cstddef>
#include <memory>
#include <span>
#include <utility>

SD_NAMESPACE_BEGIN

/// The processes that mpirun started. Made while an MpiSession lives, by all ranks together; calls come from the thread
/// that made the session. Messages do not mix with those of other users of MPI in the program.
/// "MPI: a message-passing interface standard", version 3.1, 2015.
class MpiCommunicator : public Communicator {
public:
    /// The ranks of an MPI communicator. Throws std::runtime_error if MPI refuses.
    explicit MpiCommunicator(MPI_Comm ranks = MPI_COMM_WORLD) {
        mpi::check(MPI_Comm_dup(ranks, &communicator_), "MPI_Comm_dup");
        mpi::check(MPI_Comm_set_errhandler(communicator_, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler");
        mpi::check(MPI_Comm_rank(communicator_, &rank_), "MPI_Comm_rank");
        mpi::check(MPI_Comm_size(communicator_, &size_), "MPI_Comm_size");
        MPI_Comm machine = MPI_COMM_NULL;
        int neighbours = 0;
        mpi::check(MPI_Comm_split_type(communicator_, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &machine),
                   "MPI_Comm_split_type");
        mpi::check(MPI_Comm_size(machine, &neighbours), "MPI_Comm_size");
        MPI_Comm_free(&machine);
        // the same answer on every rank: ranks that are alone on their machine are not all
        int fewest = 0;
        mpi::check(MPI_Allreduce(&neighbours, &fewest, 1, MPI_INT, MPI_MIN, communicator_), "MPI_Allreduce");
        is_one_machine_ = fewest == size_;
    }
    ~MpiCommunicator() override { MPI_Comm_free(&communicator_); }
    MpiCommunicator(const MpiCommunicator&) = delete;
    MpiCommunicator& operator=(const MpiCommunicator&) = delete;

    [[nodiscard]] Index rank() const override { return rank_; }
    [[nodiscard]] Index size() const override { return size_; }
    [[nodiscard]] bool is_one_machine() const override { return is_one_machine_; }
    [[nodiscard]] Traffic traffic() const override { return traffic_; }

protected:
    void broadcast_bytes(std::span<std::byte> bytes) override {
        const mpi::Stopwatch watch(traffic_);
        constexpr std::size_t most = std::size_t{1} << 30;  // MPI counts by int
        for (std::size_t first = 0; first < bytes.size(); first += most) {
            const auto some = bytes.subspan(first, std::min(most, bytes.size() - first));
            mpi::check(MPI_Bcast(some.data(), static_cast<int>(some.size()), MPI_BYTE, 0, communicator_), "MPI_Bcast");
        }
        if (rank_ == 0) traffic_.bytes_sent += (size_ - 1) * static_cast<Index>(bytes.size());
    }

    void all_gather_bytes(std::span<const std::byte> own, std::span<std::byte> all) override {
        const mpi::Stopwatch watch(traffic_);
        const int count = mpi::message_count(static_cast<Index>(own.size()));
        mpi::check(MPI_Allgather(own.data(), count, MPI_BYTE, all.data(), count, MPI_BYTE, communicator_),
                   "MPI_Allgather");
        traffic_.bytes_sent += Index{size_ - 1} * count;
    }

    [[nodiscard]] std::unique_ptr<PendingSum> start_sum_of(std::span<float> numbers) override {
        return std::make_unique<mpi::DirectSum<float>>(numbers, communicator_, next_tag(), traffic_);
    }
    [[nodiscard]] std::unique_ptr<PendingSum> start_sum_of(std::span<double> numbers) override {
        return std::make_unique<mpi::DirectSum<double>>(numbers, communicator_, next_tag(), traffic_);
    }

private:
    // MPI promises tags up to 32767; no more than a few sums are ever under way.
    [[nodiscard]] int next_tag() { return std::exchange(tag_, (tag_ + 2) % 32766); }

    MPI_Comm communicator_ = MPI_COMM_NULL;
    int rank_ = 0;
    int size_ = 1;
    bool is_one_machine_ = true;
    int tag_ = 0;
    Traffic traffic_;
};

SD_NAMESPACE_END

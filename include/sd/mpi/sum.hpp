// A sum over ranks by direct exchange: no tree, whose order of additions would depend on the number of bytes and on
// which ranks share a machine.
//
//     numbers of rank q:   | part 0 | part 1 | ... | part P-1 |
//     exchange             rank q sends part r to rank r, for each r
//     add                  rank r adds the P parts r in rank order
//     gather               rank r sends the sum of part r to every rank
//
// Each rank sends 2 (P - 1) / P of its numbers, as little as a ring does. R. Thakur et al., "Optimization of collective
// communication operations in MPICH", 2005, section 4.5 (reduce-scatter, then allgather).
#pragma once

#include "sd/core/batch_part.hpp"
#include "sd/core/communicator.hpp"
#include "sd/core/parallel.hpp"
#include "sd/core/storage.hpp"
#include "sd/mpi/error.hpp"

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <limits>
#include <span>
#include <type_traits>
#include <utility>

SD_NAMESPACE_BEGIN

namespace mpi {

/// Adds the time that it lives to a rank's traffic.
class Stopwatch {
public:
    explicit Stopwatch(Traffic& traffic) : traffic_(traffic), start_(std::chrono::steady_clock::now()) {}
    ~Stopwatch() {
        traffic_.seconds += std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
    }
    Stopwatch(const Stopwatch&) = delete;
    Stopwatch& operator=(const Stopwatch&) = delete;

private:
    Traffic& traffic_;
    std::chrono::steady_clock::time_point start_;
};

/// A count as MPI takes it. Throws std::invalid_argument if it is too large.
[[nodiscard]] inline int message_count(Index count) {
    if (count > std::numeric_limits<int>::max()) {
        refuse("mpi", "elements of a message", count, std::numeric_limits<int>::max());
    }
    return static_cast<int>(count);
}

/// One sum of floats or doubles, started by its constructor. All ranks start their sums in the same order and so with
/// the same tag; messages are matched by it, hence each may move on several sums in an order of its own.
template <class T>
class DirectSum : public PendingSum {
public:
    /// `tag` is an even number; the sum uses it and the next one.
    DirectSum(std::span<T> numbers, MPI_Comm communicator, int tag, Traffic& traffic)
        : numbers_(numbers), communicator_(communicator), tag_(tag), traffic_(traffic) {
        const Stopwatch watch(traffic_);
        check(MPI_Comm_rank(communicator_, &rank_), "MPI_Comm_rank");
        check(MPI_Comm_size(communicator_, &ranks_), "MPI_Comm_size");
        const BatchPart own = part(rank_);
        received_.resize(static_cast<std::size_t>(own.count * ranks_));
        try {
            for_each_other([&](int other) {
                receive(received_.data() + other * own.count, own.count, other, tag_);
                send(part(other), other, tag_);
            });
        } catch (...) {
            keep_for_ever(std::move(received_));
            throw;
        }
    }

    void advance() override {
        const Stopwatch watch(traffic_);
        int done = 0;
        check(MPI_Testall(message_count(static_cast<Index>(requests_.size())), requests_.data(), &done,
                          MPI_STATUSES_IGNORE),
              "MPI_Testall");
        if (done != 0 && !summed_) add_and_gather();
    }

    void finish() override {
        const Stopwatch watch(traffic_);
        wait();
        if (summed_) return;
        add_and_gather();
        wait();
    }

private:
    [[nodiscard]] BatchPart part(int rank) const {
        return part_of_rank(static_cast<Index>(numbers_.size()), rank, ranks_);
    }

    template <class Body>
    void for_each_other(const Body& body) const {
        for (int step = 1; step < ranks_; ++step) body((rank_ + step) % ranks_);  // not all at the same one first
    }

    void receive(T* target, Index count, int from, int tag) {
        check(MPI_Irecv(target, message_count(count), type(), from, tag, communicator_, &requests_.emplace_back()),
              "MPI_Irecv");
    }
    void send(const BatchPart& part, int to, int tag) {
        check(MPI_Isend(numbers_.data() + part.first, message_count(part.count), type(), to, tag, communicator_,
                        &requests_.emplace_back()),
              "MPI_Isend");
        traffic_.bytes_sent += part.count * static_cast<Index>(sizeof(T));
    }

    void wait() {
        check(MPI_Waitall(message_count(static_cast<Index>(requests_.size())), requests_.data(), MPI_STATUSES_IGNORE),
              "MPI_Waitall");
    }

    void add_and_gather() {
        summed_ = true;
        const BatchPart own = part(rank_);
        T* const target = numbers_.data() + own.first;
        std::copy_n(target, own.count, received_.data() + rank_ * own.count);
        parallel_ranges(own.count, 16384, [&](Index first, Index last) {
            std::copy(received_.data() + first, received_.data() + last, target + first);
            for (Index rank = 1; rank < ranks_; ++rank) {
                const T* const term = received_.data() + rank * own.count;
                for (Index i = first; i < last; ++i) target[i] += term[i];
            }
        });
        requests_.clear();
        for_each_other([&](int other) {
            const BatchPart theirs = part(other);
            receive(numbers_.data() + theirs.first, theirs.count, other, tag_ + 1);
            send(own, other, tag_ + 1);
        });
    }

    [[nodiscard]] static MPI_Datatype type() { return std::is_same_v<T, float> ? MPI_FLOAT : MPI_DOUBLE; }

    std::span<T> numbers_;
    MPI_Comm communicator_;
    int tag_;
    Traffic& traffic_;
    int rank_ = 0;
    int ranks_ = 1;
    PooledVector<T> received_;  ///< this rank's part as each rank has it
    PooledVector<MPI_Request> requests_;
    bool summed_ = false;
};

}  // namespace mpi

SD_NAMESPACE_END

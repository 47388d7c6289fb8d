// The life of a program on several processes: begin, end, and an end for all as soon as one fails.
#pragma once

#include "sd/mpi/communicator.hpp"

#include <exception>
#include <iostream>
#include <stdexcept>

SD_NAMESPACE_BEGIN

/// Starts MPI and, when it goes, ends it. One a program, made first in main.
class MpiSession {
public:
    /// Throws std::runtime_error if MPI does not start. Other threads may run as long as they leave MPI alone.
    MpiSession(int& argc, char**& argv) {
        int provided = MPI_THREAD_SINGLE;
        mpi::check(MPI_Init_thread(&argc, &argv, MPI_THREAD_FUNNELED, &provided), "MPI_Init_thread");
        if (provided < MPI_THREAD_FUNNELED) {
            MPI_Finalize();
            throw std::runtime_error("MPI_Init_thread: got a library without threads, expected MPI_THREAD_FUNNELED");
        }
    }
    ~MpiSession() { MPI_Finalize(); }
    MpiSession(const MpiSession&) = delete;
    MpiSession& operator=(const MpiSession&) = delete;
};

/// Ends the processes of all ranks at once, this one's with the status, which is not 0. Does not return.
[[noreturn]] inline void mpi_abort(int status) {
    std::cout << std::flush;
    MPI_Abort(MPI_COMM_WORLD, status);
    std::abort();
}

/// Calls body(communicator) on every rank of the job that mpirun started and returns what body returns, the exit status
/// of this process; all ranks come to the return together. If body throws on any rank, its message is printed with the
/// rank's number, and all processes of the job end with status 1, since the others would wait for this one forever.
///
///     int main(int argc, char** argv) {
///         return sd::run_ranks(argc, argv, [&](sd::Communicator& communicator) { return train(communicator); });
///     }
template <class Body>
int run_ranks(int argc, char** argv, const Body& body) {
    const MpiSession session(argc, argv);
    MpiCommunicator communicator;
    try {
        return body(static_cast<Communicator&>(communicator));
    } catch (const std::exception& error) {
        std::cerr << "rank " << communicator.rank() << ": " << error.what() << std::endl;
    } catch (...) {
        std::cerr << "rank " << communicator.rank() << ": an exception of an unknown type" << std::endl;
    }
    mpi_abort(1);
}

SD_NAMESPACE_END

# The component sd::mpi: the headers in sd/mpi, and the MPI that was found.
if(NOT TARGET sd::mpi)
  add_library(sd::mpi INTERFACE IMPORTED)
  target_link_libraries(sd::mpi INTERFACE sd::sd MPI::MPI_CXX)
endif()

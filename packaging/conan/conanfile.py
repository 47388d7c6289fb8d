"""Conan 2 recipe; packages the tree in which it stands."""

import os
import re

from conan import ConanFile
from conan.tools.build import check_min_cppstd
from conan.tools.cmake import CMake, cmake_layout
from conan.tools.files import copy, load, rmdir

required_conan_version = ">=2.0"


class SdConan(ConanFile):
    name = "sd"
    description = "Residual networks with stochastic depth, header-only C++20"
    license = "MIT"
    topics = ("deep-learning", "resnet", "stochastic-depth", "header-only")
    package_type = "header-library"
    settings = "os", "arch", "compiler", "build_type"
    generators = "CMakeDeps", "CMakeToolchain"
    no_copy_source = True

    @property
    def _tree(self):
        return os.path.join(self.recipe_folder, "..", "..")

    def set_version(self):
        # The version stands in one place, the header.
        header = load(self, os.path.join(self._tree, "include", "sd", "core", "config.hpp"))
        self.version = ".".join(re.findall(r"#define SD_VERSION_(?:MAJOR|MINOR|PATCH) (\d+)", header))

    def export_sources(self):
        for pattern in ("CMakeLists.txt", "LICENSE", "cmake/*", "include/*"):
            copy(self, pattern, src=self._tree, dst=self.export_sources_folder)

    def layout(self):
        cmake_layout(self)

    def requirements(self):
        self.requires("eigen/[>=3.4.0 <6]")

    def validate(self):
        check_min_cppstd(self, 20)

    def build(self):
        cmake = CMake(self)
        cmake.configure(variables={"SD_DEVELOPMENT": False})

    def package(self):
        copy(self, "LICENSE", src=self.source_folder, dst=os.path.join(self.package_folder, "licenses"))
        CMake(self).install()
        rmdir(self, os.path.join(self.package_folder, "share", "doc"))
        rmdir(self, os.path.join(self.package_folder, "share", "pkgconfig"))

    def package_id(self):
        self.info.clear()

    def package_info(self):
        # The library's own CMake configuration has sd::native, and OpenMP where it is found.
        self.cpp_info.set_property("cmake_find_mode", "none")
        self.cpp_info.builddirs = [os.path.join("share", "cmake", "sd")]
        self.cpp_info.set_property("pkg_config_name", "sd")
        self.cpp_info.bindirs = []
        self.cpp_info.libdirs = []

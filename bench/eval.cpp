// Forward passes in evaluation.
#include "benchmarks.hpp"
#include "measure.hpp"
#include "networks.hpp"

#include <utility>

namespace bench {

namespace {

template <class T, class Model>
class Eval final : public Workload {
public:
    Eval(Model model, const NetworkCase& network)
        : model_(std::move(model)), images_(filled<T>(network.input_shape())) {}

    void run() override { benchmark::DoNotOptimize(model_.forward(images_, sd::Context::eval()).data()); }
    [[nodiscard]] Index images() const override { return images_.extent(0); }

private:
    Model model_;
    sd::Tensor<T> images_;
};

}  // namespace

template <class T>
std::vector<NamedWorkload> evals() {
    std::vector<NamedWorkload> all;
    for (const NetworkCase& network : network_cases()) {
        const auto make = [network]() -> std::unique_ptr<Workload> {
            const auto build = [&]<class Model>(Model& model) -> std::unique_ptr<Workload> {
                return std::make_unique<Eval<T, Model>>(std::move(model), network);
            };
            return tools::with_network<T>(network.model, {.num_classes = network.classes}, build);
        };
        all.push_back({sd::text(name_of<T>("eval"), '/', network.model, '/', network.extents()), make});
    }
    return all;
}

template std::vector<NamedWorkload> evals<float>();
template std::vector<NamedWorkload> evals<sd::bfloat16>();

}  // namespace bench

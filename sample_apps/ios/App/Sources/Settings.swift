import Foundation
import SatchelKit
import SwiftUI

/// How answers are chosen, and where the model runs.
struct ChatSettings: Equatable {
    enum Compute: String, CaseIterable, Identifiable {
        case asPlanned = "As the bundle says"
        case all = "All"
        case neuralEngine = "CPU and Neural Engine"
        case gpu = "CPU and GPU"
        case cpu = "CPU only"

        var id: String { rawValue }

        /// As the manifest names them; nil for the bundle's own.
        var option: String? {
            switch self {
            case .asPlanned: nil
            case .all: "all"
            case .neuralEngine: "cpuAndNeuralEngine"
            case .gpu: "cpuAndGPU"
            case .cpu: "cpuOnly"
            }
        }
    }

    var temperature = 0.0
    var topK = 0
    var topP = 1.0
    var maxNewTokens = 256
    /// Digits, or nothing for another each time.
    var seed = ""
    var compute = Compute.asPlanned

    mutating func take(_ defaults: GenerationDefaults) {
        temperature = defaults.sampling.temperature
        topK = defaults.sampling.topK
        topP = defaults.sampling.topP
        maxNewTokens = defaults.maxNewTokens
    }

    var options: GenerateOptions {
        GenerateOptions(
            maxNewTokens: maxNewTokens, sampling: Sampling(temperature: temperature, topK: topK, topP: topP),
            seed: try? Seed(seed))
    }
}

struct SettingsView: View {
    @EnvironmentObject private var model: AppModel
    @Environment(\.dismiss) private var dismiss

    var body: some View {
        NavigationStack {
            Form {
                Section("Sampling") {
                    VStack(alignment: .leading) {
                        Text("Temperature \(model.settings.temperature, specifier: "%.2f")")
                            .accessibilityHidden(true)
                        Slider(value: $model.settings.temperature, in: 0...2, step: 0.05)
                            .accessibilityLabel("Temperature")
                            .accessibilityValue(String(format: "%.2f", model.settings.temperature))
                    }
                    Stepper(
                        "Top k: \(model.settings.topK == 0 ? "off" : String(model.settings.topK))",
                        value: $model.settings.topK, in: 0...200, step: 10)
                    VStack(alignment: .leading) {
                        Text("Top p \(model.settings.topP, specifier: "%.2f")")
                            .accessibilityHidden(true)
                        Slider(value: $model.settings.topP, in: 0.05...1, step: 0.05)
                            .accessibilityLabel("Top p")
                            .accessibilityValue(String(format: "%.2f", model.settings.topP))
                    }
                    TextField("Seed (empty: another each time)", text: $model.settings.seed)
                        .keyboardType(.numberPad)
                        .accessibilityLabel("Seed")
                    Stepper(
                        "At most \(model.settings.maxNewTokens) tokens", value: $model.settings.maxNewTokens,
                        in: 16...2048, step: 16)
                }
                Section {
                    Picker("Runs on", selection: $model.settings.compute) {
                        ForEach(ChatSettings.Compute.allCases) { Text($0.rawValue).tag($0) }
                    }
                } footer: {
                    Text("Takes effect when a bundle is opened again.")
                }
            }
            .navigationTitle("Settings")
            .toolbar {
                ToolbarItem(placement: .confirmationAction) { Button("Done") { dismiss() } }
            }
        }
    }
}

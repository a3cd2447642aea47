import Foundation
import SatchelKit
import SwiftUI

struct ParityScreen: View {
    @EnvironmentObject private var model: AppModel
    @State private var device = ""
    @State private var prompts = 0

    var body: some View {
        NavigationStack {
            List {
                Section {
                    TextField(ParityHost.current().device, text: $device)
                        .autocorrectionDisabled()
                        .textInputAutocapitalization(.never)
                        .accessibilityLabel("Name of this device, for the file")
                    Stepper(
                        prompts == 0 ? "All golden prompts" : "The first \(prompts) golden prompts", value: $prompts,
                        in: 0...32)
                    if model.isBusy {
                        Button("Stop", role: .cancel) { model.cancel() }
                    } else {
                        Button("Run Parity") { model.runParity(device: device, prompts: prompts == 0 ? nil : prompts) }
                            .disabled(model.opened == nil)
                    }
                } footer: {
                    Text(
                        model.opened == nil
                            ? "Open a bundle first."
                            : "Replays the bundle's golden prompts and compares with what the original model says.")
                }
                Section { StatusBar() }
                if let report = model.report { ReportSections(report: report, file: model.reportFile) }
                if let placement = model.placement { PlacementSection(placement: placement) }
            }
            .navigationTitle("Parity")
        }
    }
}

private struct ReportSections: View {
    let report: ParityReport
    let file: URL?

    var body: some View {
        Section {
            Label(
                report.passed ? "Passed" : "Failed: \(report.failures.count) figures are beyond their limits",
                systemImage: report.passed ? "checkmark.circle.fill" : "xmark.octagon.fill"
            )
            .foregroundStyle(report.passed ? Color.green : Color.red)
            .font(.headline)
            LabeledContent("Prompt", value: report.prefillRate.map { "\(rate($0)) tokens/s" } ?? "–")
            LabeledContent("Answer", value: report.decodeRate.map { "\(rate($0)) tokens/s" } ?? "–")
            if report.skipped > 0 { LabeledContent("Longer than the context", value: "\(report.skipped) prompts") }
            if let file {
                ShareLink(item: file) { Label("Share \(report.fileName)", systemImage: "square.and.arrow.up") }
            }
        }
        ForEach(Comparison.allCases, id: \.self) { comparison in
            FigureSection(comparison: comparison, rows: report.rows.filter { $0.comparison == comparison })
        }
        ForEach(report.answers, id: \.comparison) { of in
            Section("Greedy answers: \(of.comparison.rawValue)") {
                ForEach(of.list, id: \.prompt) { Text(describe($0)).font(.caption) }
            }
        }
    }

    private func describe(_ answer: Answer) -> String {
        let agreed = "Prompt \(answer.prompt + 1): \(answer.agreed) of \(answer.ids.count) tokens agree"
        guard let parted = answer.parted else { return agreed }
        return agreed + ", then \(parted.got) where golden has \(parted.wanted) (gap \(shown(parted.gap)))"
    }
}

private struct FigureSection: View {
    let comparison: Comparison
    let rows: [ParityRow]

    var body: some View {
        if !rows.isEmpty {
            Section(comparison == .lowering ? "Against the bundle's own weights" : "Against the original model") {
                ForEach(Array(rows.enumerated()), id: \.offset) { _, row in FigureRow(row: row) }
            }
        }
    }
}

private struct FigureRow: View {
    let row: ParityRow

    private var bound: String {
        guard let limit = row.limit else { return "" }
        return "\(limit.isMaximum ? "at most" : "at least") \(shown(limit.value)): \(limit.reason)"
    }

    var body: some View {
        VStack(alignment: .leading) {
            HStack {
                Text("\(row.route) \(row.figure)")
                Spacer()
                Text(row.value.map(shown) ?? "–").monospacedDigit()
                if row.limit != nil {
                    Image(systemName: row.passed ? "checkmark" : "xmark")
                        .foregroundStyle(row.passed ? Color.green : Color.red)
                        .accessibilityLabel(row.passed ? "within its limit" : "beyond its limit")
                }
            }
            if !bound.isEmpty { Text(bound).font(.caption).foregroundStyle(.secondary) }
        }
        .accessibilityElement(children: .combine)
    }
}

private struct PlacementSection: View {
    let placement: Placement

    private static let names = ["neuralEngine": "Neural Engine", "gpu": "GPU", "cpu": "CPU"]

    var body: some View {
        Section("Where Core ML means to run it") {
            ForEach(placement.operations.keys.sorted(), id: \.self) { device in
                LabeledContent(Self.names[device] ?? device, value: describe(device))
            }
            if !placement.elsewhere.isEmpty {
                let names = placement.elsewhere.sorted { $0.value > $1.value }.map { "\($0.key) (\($0.value))" }
                Text("Not on the Neural Engine: \(names.prefix(8).joined(separator: ", "))").font(.caption)
            }
        }
    }

    private func describe(_ device: String) -> String {
        let count = "\(placement.operations[device] ?? 0) operations"
        return placement.shares[device].map { "\(count), \(Int(($0 * 100).rounded())) % of the cost" } ?? count
    }
}

func shown(_ value: Double) -> String { String(format: "%.4g", value) }

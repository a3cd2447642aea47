import Foundation
import SatchelKit
import SwiftUI
import UniformTypeIdentifiers

struct BundleScreen: View {
    @EnvironmentObject private var model: AppModel
    @State private var picks = false

    var body: some View {
        NavigationStack {
            List {
                Section {
                    if model.bundles.isEmpty { Text("No bundles yet").foregroundStyle(.secondary) }
                    ForEach(model.bundles) { item in
                        Button {
                            model.open(item)
                        } label: {
                            BundleRow(item: item, isOpen: item == model.openedItem)
                        }
                        .disabled(model.isBusy)
                        .deleteDisabled(!item.isRemovable || model.isBusy)
                    }
                    .onDelete { places in places.map { model.bundles[$0] }.forEach(model.remove) }
                } footer: {
                    Text(
                        "Add a folder <model>-<device>.satchel with the button, or put it into the app's folder in Files."
                    )
                }
                if let opened = model.opened { OpenedSection(opened: opened) }
                Section { StatusBar() }
                if model.isBusy { Button("Stop", role: .cancel) { model.cancel() } }
            }
            .navigationTitle("Bundles")
            .refreshable { model.refresh() }
            .onAppear { model.refresh() }
            .toolbar {
                Button {
                    picks = true
                } label: {
                    Image(systemName: "plus")
                }
                .disabled(model.isBusy)
                .accessibilityLabel("Add a bundle from Files")
            }
            .fileImporter(isPresented: $picks, allowedContentTypes: [.folder, .satchelBundle]) { model.add($0) }
        }
    }
}

extension UTType {
    /// Declared in Info.plist, so that Files shows a bundle as one thing.
    static var satchelBundle: UTType { UTType(exportedAs: "io.satchel.bundle") }
}

private struct BundleRow: View {
    let item: BundleLibrary.Item
    let isOpen: Bool

    var body: some View {
        HStack {
            VStack(alignment: .leading) {
                Text(item.name)
                Text(item.isRemovable ? "In this app's folder" : "Came with the app").font(.caption).foregroundStyle(
                    .secondary)
            }
            Spacer()
            if isOpen { Image(systemName: "checkmark").accessibilityLabel("Open") }
        }
        .accessibilityElement(children: .combine)
        .accessibilityHint("Checks the bundle and loads its model")
    }
}

private struct OpenedSection: View {
    let opened: Opened

    var body: some View {
        let manifest = opened.manifest
        Section("Open") {
            LabeledContent("Model", value: manifest.model.id)
            LabeledContent("Made for", value: ([manifest.device] + manifest.alsoFor).joined(separator: ", "))
            LabeledContent("Weights", value: manifest.scheme)
            LabeledContent("Context", value: "\(manifest.entry.contextLength) tokens")
            LabeledContent("Size", value: "\(opened.bytes / 1_000_000) MB")
            LabeledContent("Licence", value: manifest.model.license)
            LabeledContent("Loaded in", value: seconds(opened.loadSeconds))
        }
    }
}

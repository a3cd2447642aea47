import Foundation
import SatchelKit
import SwiftUI

/// How far something that takes its time is.
struct Stage: Equatable {
    let text: String
    let done: Int
    let total: Int

    /// nil where that is not known.
    var fraction: Double? { total > 0 ? Double(done) / Double(total) : nil }
}

/// What the screens show. The model itself runs on the engine's queue.
@MainActor
final class AppModel: ObservableObject {
    @Published private(set) var bundles: [BundleLibrary.Item] = []
    @Published private(set) var opened: Opened?
    @Published private(set) var openedItem: BundleLibrary.Item?
    @Published private(set) var stage: Stage?
    @Published private(set) var chat = Chat(model: "")
    @Published private(set) var history: [Chat] = []
    @Published private(set) var figures = ""
    @Published private(set) var report: ParityReport?
    @Published private(set) var reportFile: URL?
    @Published private(set) var placement: Placement?
    @Published var hasProblem = false
    @Published var settings = ChatSettings()
    private(set) var problem = ""

    private let library = BundleLibrary.ofApp()
    private let store: ChatHistory
    private let engine: Engine
    private let compute = ComputeChoice()
    private var work: Task<Void, Never>?

    init() {
        let support = FileManager.default.urls(for: .applicationSupportDirectory, in: .userDomainMask)[0]
        store = ChatHistory(file: support.appendingPathComponent("chats.json"))
        engine = Engine { [compute] bundle, told in try CoreMLBackend.open(bundle, compute: compute.value, told: told) }
    }

    var isBusy: Bool { stage != nil }
    var title: String { opened?.manifest.model.id ?? "No model" }

    /// Shows what there is, and opens the only bundle, if there is one.
    func start() {
        history = store.read()
        refresh()
        if opened == nil, !isBusy, bundles.count == 1 { open(bundles[0]) }
    }

    func refresh() { bundles = library.items() }

    func cancel() { work?.cancel() }

    func open(_ item: BundleLibrary.Item) {
        compute.value = settings.compute.option
        run("Opening") { [self] in
            (opened, openedItem, report, placement) = (nil, nil, nil, nil)
            for try await event in engine.open(item.url) {
                guard case .opened(let found) = event else {
                    show(event)
                    continue
                }
                (opened, openedItem) = (found, item)
                settings.take(found.manifest.generation)
                figures = "Loaded in \(seconds(found.loadSeconds)) · \(memory())"
                newChat()
            }
        }
    }

    /// Of a folder that a person chose.
    func add(_ result: Result<URL, Error>) {
        run("Copying") { [self] in
            let url = try result.get()
            let isScoped = url.startAccessingSecurityScopedResource()
            defer { if isScoped { url.stopAccessingSecurityScopedResource() } }
            let library = library
            _ = try await Task.detached { try library.add(url) }.value
            refresh()
        }
    }

    func remove(_ item: BundleLibrary.Item) {
        attempt { try library.remove(item) }
        refresh()
    }

    func send(_ text: String) {
        let text = text.trimmingCharacters(in: .whitespacesAndNewlines)
        guard !text.isEmpty, !isBusy, opened != nil else { return }
        chat.messages.append(Message(role: "user", content: text))
        let (asked, options) = (chat.messages, settings.options)
        chat.messages.append(Message(role: "assistant", content: ""))
        var answering = chat  // which a person may leave for another meanwhile
        run("Reading") { [self] in
            defer { keep(answering) }
            for try await event in engine.chat(asked, options) {
                switch event {
                case .piece(let piece):
                    answering.messages[asked.count].content += piece
                    if chat.id == answering.id { chat = answering }
                case .answered(let answered): figures = describe(answered)
                default: show(event)
                }
            }
        }
    }

    func newChat() { chat = Chat(model: opened?.manifest.model.id ?? "") }

    func show(_ earlier: Chat) {
        cancel()
        chat = earlier
    }

    func delete(_ chat: Chat) {
        attempt { try store.delete(chat.id) }
        history = store.read()
        if chat.id == self.chat.id { newChat() }
    }

    /// prompts: only the first so many.
    func runParity(device: String, prompts: Int?) {
        run("Replaying golden prompts") { [self] in
            (report, reportFile) = (nil, nil)
            await findPlacement()
            let name = device.isEmpty ? nil : device
            let host = ParityHost.current(name: name, compute: usedCompute, placement: placement)
            for try await event in engine.parity(host: host, prompts: prompts) {
                guard case .parity(let found) = event else {
                    show(event)
                    continue
                }
                report = found
                let file = library.documents.appendingPathComponent(found.fileName)
                try found.json.write(to: file, options: .atomic)
                reportFile = file
            }
        }
    }

    private var usedCompute: String? { settings.compute.option ?? opened?.manifest.entry.option("compute") }

    /// Where Core ML means to run the model; Parity goes on without it.
    private func findPlacement() async {
        guard placement == nil, let openedItem else { return }
        stage = Stage(text: "Asking Core ML where the model runs", done: 0, total: 0)
        if #available(iOS 17.4, macOS 14.4, *) {
            let compute = usedCompute
            placement = try? await Task.detached {
                try await Placement.read(ModelBundle(folder: openedItem.url, verify: false), compute: compute)
            }.value
        }
    }

    private func run(_ text: String, _ steps: @escaping @MainActor () async throws -> Void) {
        guard work == nil else { return }
        stage = Stage(text: text, done: 0, total: 0)
        work = Task {
            defer { (stage, work) = (nil, nil) }
            do {
                try await steps()
                try Task.checkCancellation()  // a cancelled stream just ends
            } catch is CancellationError {
                figures = "Cancelled · \(memory())"
            } catch {
                tell(error)
            }
        }
    }

    private func show(_ event: EngineEvent) {
        if case .progress(let text, let done, let total) = event { stage = Stage(text: text, done: done, total: total) }
    }

    private func keep(_ answered: Chat) {
        var kept = answered
        if kept.messages.last?.content.isEmpty == true { kept.messages.removeLast() }
        if chat.id == kept.id { chat = kept }
        attempt { try store.save(kept) }
        history = store.read()
    }

    private func attempt(_ step: () throws -> Void) {
        do { try step() } catch { tell(error) }
    }

    private func tell(_ error: Error) {
        problem = reason(of: error)
        hasProblem = true
    }

    private func describe(_ answered: Answered) -> String {
        let end = [
            "stop": "", "length": "as long as allowed", "context": "the context is full", "cancelled": "cancelled",
        ]
        let parts = [
            "\(answered.tokens) tokens", answered.decodeRate.map { "\(rate($0)) tokens/s" },
            answered.prefillRate.map { "prompt \(rate($0)) tokens/s" }, memory(), end[answered.reason.rawValue],
        ]
        return parts.compactMap { $0 }.filter { !$0.isEmpty }.joined(separator: " · ")
    }
}

/// What the engine's queue reads when it loads a model, set before.
final class ComputeChoice: @unchecked Sendable {
    private let lock = NSLock()
    private var held: String?

    var value: String? {
        get { lock.withLock { held } }
        set { lock.withLock { held = newValue } }
    }
}

func rate(_ value: Double) -> String { String(format: value < 10 ? "%.1f" : "%.0f", value) }
func seconds(_ value: Double) -> String { String(format: "%.1f s", value) }
func memory() -> String { memoryInUse().map { "\($0 >> 20) MB in use" } ?? "" }

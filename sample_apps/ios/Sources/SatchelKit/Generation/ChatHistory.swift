import Foundation

public struct Chat: Codable, Identifiable, Equatable, Sendable {
    public let id: UUID
    /// The model that it began with.
    public let model: String
    public var messages: [Message]

    public init(model: String, messages: [Message] = []) {
        id = UUID()
        self.model = model
        self.messages = messages
    }

    public var title: String {
        messages.first { $0.role == "user" }.map { String($0.content.prefix(60)) } ?? "New chat"
    }
}

/// Earlier chats, kept in a file on this device, the latest first.
public struct ChatHistory {
    private let file: URL
    private static let most = 100

    public init(file: URL) { self.file = file }

    /// None where the file is missing or damaged.
    public func read() -> [Chat] {
        (try? JSONDecoder().decode([Chat].self, from: Data(contentsOf: file))) ?? []
    }

    /// Puts a chat in front of the others; the oldest go. Throws an OutputError.
    public func save(_ chat: Chat) throws {
        try write(Array(([chat] + read().filter { $0.id != chat.id }).prefix(Self.most)))
    }

    public func delete(_ id: Chat.ID) throws {
        try write(read().filter { $0.id != id })
    }

    private func write(_ chats: [Chat]) throws {
        do {
            try FileManager.default.createDirectory(
                at: file.deletingLastPathComponent(), withIntermediateDirectories: true)
            try JSONEncoder().encode(chats).write(to: file, options: .atomic)
        } catch {
            throw outputError("the chats cannot be kept", got: reason(of: error), hint: "is there room on the device?")
        }
    }
}

import Foundation
import SatchelKit
import SwiftUI

struct ChatScreen: View {
    @EnvironmentObject private var model: AppModel
    @State private var draft = ""
    @State private var showsHistory = false
    @State private var showsSettings = false
    @FocusState private var isWriting: Bool

    var body: some View {
        NavigationStack {
            VStack(spacing: 0) {
                messages
                StatusBar()
                composer
            }
            .navigationTitle(model.title)
            .navigationBarTitleDisplayMode(.inline)
            .toolbar {
                ToolbarItem(placement: .navigationBarLeading) {
                    Button {
                        showsHistory = true
                    } label: {
                        Image(systemName: "clock")
                    }
                    .accessibilityLabel("Earlier chats")
                }
                ToolbarItemGroup(placement: .navigationBarTrailing) {
                    Button {
                        showsSettings = true
                    } label: {
                        Image(systemName: "slider.horizontal.3")
                    }
                    .accessibilityLabel("Settings")
                    Button {
                        model.newChat()
                    } label: {
                        Image(systemName: "square.and.pencil")
                    }
                    .disabled(model.isBusy)
                    .accessibilityLabel("New chat")
                }
            }
            .sheet(isPresented: $showsHistory) { HistoryView() }
            .sheet(isPresented: $showsSettings) { SettingsView() }
        }
    }

    private var messages: some View {
        ScrollViewReader { scroll in
            ScrollView {
                LazyVStack(spacing: 12) {
                    if model.chat.messages.isEmpty { Greeting() }
                    ForEach(Array(model.chat.messages.enumerated()), id: \.offset) { index, message in
                        MessageRow(message: message).id(index)
                    }
                }
                .padding()
            }
            .onChange(of: model.chat.messages.last?.content) { _ in
                scroll.scrollTo(model.chat.messages.count - 1, anchor: .bottom)
            }
        }
    }

    private var composer: some View {
        HStack(alignment: .bottom) {
            TextField("Message", text: $draft, axis: .vertical)
                .lineLimit(1...6)
                .textFieldStyle(.roundedBorder)
                .focused($isWriting)
                .accessibilityLabel("Message to the model")
            if model.isBusy {
                Button {
                    model.cancel()
                } label: {
                    Image(systemName: "stop.circle.fill").font(.title)
                }
                .accessibilityLabel("Stop")
            } else {
                Button {
                    send()
                } label: {
                    Image(systemName: "arrow.up.circle.fill").font(.title)
                }
                .disabled(model.opened == nil || draft.isEmpty)
                .accessibilityLabel("Send")
            }
        }
        .padding()
    }

    private func send() {
        model.send(draft)
        draft = ""
        isWriting = true
    }
}

/// What to do first.
private struct Greeting: View {
    @EnvironmentObject private var model: AppModel

    var body: some View {
        VStack(spacing: 8) {
            Image(systemName: "shippingbox").font(.largeTitle)
                .accessibilityHidden(true)
            Text(model.opened == nil ? "Open a bundle under Bundles." : "Ask something. Nothing leaves this device.")
                .multilineTextAlignment(.center)
                .foregroundStyle(.secondary)
        }
        .padding(.top, 80)
    }
}

private struct MessageRow: View {
    let message: Message

    private var isOwn: Bool { message.role == "user" }

    var body: some View {
        HStack {
            if isOwn { Spacer(minLength: 40) }
            Text(message.content.isEmpty ? "…" : message.content)
                .textSelection(.enabled)
                .padding(10)
                .background(isOwn ? AnyShapeStyle(Color.accentColor.opacity(0.2)) : AnyShapeStyle(.thinMaterial))
                .clipShape(RoundedRectangle(cornerRadius: 14))
            if !isOwn { Spacer(minLength: 40) }
        }
        .accessibilityElement(children: .combine)
        .accessibilityLabel(isOwn ? "You: \(message.content)" : "Model: \(message.content)")
    }
}

/// Progress while something runs; else the last figures.
struct StatusBar: View {
    @EnvironmentObject private var model: AppModel

    var body: some View {
        VStack(spacing: 4) {
            if let stage = model.stage {
                if let fraction = stage.fraction {
                    ProgressView(value: fraction) { Text(stage.text).font(.caption) }
                } else {
                    ProgressView(stage.text).font(.caption)
                }
            } else if !model.figures.isEmpty {
                Text(model.figures).font(.caption).foregroundStyle(.secondary).monospacedDigit()
            }
        }
        .frame(maxWidth: .infinity)
        .padding(.horizontal)
        .accessibilityElement(children: .combine)
    }
}

struct HistoryView: View {
    @EnvironmentObject private var model: AppModel
    @Environment(\.dismiss) private var dismiss

    var body: some View {
        NavigationStack {
            List {
                if model.history.isEmpty { Text("No earlier chats").foregroundStyle(.secondary) }
                ForEach(model.history) { chat in
                    Button {
                        model.show(chat)
                        dismiss()
                    } label: {
                        VStack(alignment: .leading) {
                            Text(chat.title).lineLimit(2)
                            Text(chat.model).font(.caption).foregroundStyle(.secondary)
                        }
                    }
                    .accessibilityHint("Goes on with this chat")
                }
                .onDelete { places in places.map { model.history[$0] }.forEach(model.delete) }
            }
            .navigationTitle("Chats")
            .toolbar {
                ToolbarItem(placement: .confirmationAction) { Button("Done") { dismiss() } }
            }
        }
    }
}

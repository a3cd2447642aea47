import Foundation
import SatchelKit
import SwiftUI

@main
struct SatchelApp: App {
    @StateObject private var model = AppModel()

    var body: some Scene {
        WindowGroup {
            RootView()
                .environmentObject(model)
                .task { model.start() }
        }
    }
}

struct RootView: View {
    @EnvironmentObject private var model: AppModel

    var body: some View {
        TabView {
            ChatScreen()
                .tabItem { Label("Chat", systemImage: "bubble.left.and.bubble.right") }
            ParityScreen()
                .tabItem { Label("Parity", systemImage: "checkmark.seal") }
            BundleScreen()
                .tabItem { Label("Bundles", systemImage: "shippingbox") }
        }
        .alert("Something went wrong", isPresented: $model.hasProblem) {
            Button("OK", role: .cancel) {}
        } message: {
            Text(model.problem)
        }
    }
}

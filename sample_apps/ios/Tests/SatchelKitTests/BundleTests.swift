import XCTest

@testable import SatchelKit

final class BundleTests: XCTestCase {
    private func copy() throws -> URL {
        let folder = try scratchFolder(self).appendingPathComponent("copy.satchel")
        try FileManager.default.copyItem(at: tinyBundle(), to: folder)
        return folder
    }

    func testOpensWholeWithProgress() throws {
        var last = (0, 0)
        let bundle = try ModelBundle(folder: tinyBundle()) { last = ($0, $1) }
        let size = try FileManager.default.attributesOfItem(atPath: bundle.url("manifest.json").path)[.size] as? Int
        XCTAssertEqual(last.0, last.1)
        XCTAssertEqual(last.1 + (size ?? 0), bundle.bytes)
        XCTAssertEqual(bundle.manifest.device, "pixel-9")
        XCTAssertEqual(bundle.id, try sha256(of: bundle.url("manifest.json")))
        XCTAssertRefused("no such file") { _ = try bundle.read("x") }
        XCTAssertNil(try bundle.text("x"))
    }

    func testWhatIsNotWholeIsRefused() throws {
        func edit(_ path: String, _ change: @escaping (String) -> String) -> (URL) throws -> Void {
            { folder in
                let url = folder.appendingPathComponent(path)
                try Data(change(String(contentsOf: url, encoding: .utf8)).utf8).write(to: url)
            }
        }
        func manifest(_ old: String, _ new: String) -> (URL) throws -> Void {
            edit("manifest.json") { text in
                XCTAssert(text.contains(old), old)
                return text.replacingOccurrences(of: old, with: new)
            }
        }
        let damages: [(String, (URL) throws -> Void)] = [
            (
                "not a bundle: manifest.json cannot be read",
                { try FileManager.default.removeItem(at: $0.appendingPathComponent("manifest.json")) }
            ),
            ("files are missing", { try FileManager.default.removeItem(at: $0.appendingPathComponent("model.onnx")) }),
            (
                "that the manifest does not list",
                { try Data("x".utf8).write(to: $0.appendingPathComponent("golden/x.txt")) }
            ),
            (
                "model.onnx.data: its sha256 is not the manifest's",
                { folder in
                    let url = folder.appendingPathComponent("model.onnx.data")
                    var data = try Data(contentsOf: url)
                    data[5] ^= 1
                    try data.write(to: url)
                }
            ),
            ("LICENSE: its size is not the manifest's", { try Data().write(to: $0.appendingPathComponent("LICENSE")) }),
            (
                "a link or special file",
                { folder in
                    let url = folder.appendingPathComponent("LICENSE")
                    try FileManager.default.moveItem(
                        at: url, to: folder.deletingLastPathComponent().appendingPathComponent("real"))
                    try FileManager.default.createSymbolicLink(atPath: url.path, withDestinationPath: "../real")
                }
            ),
            ("unknown schema", manifest("\"schema_version\": 1", "\"schema_version\": 2")),
            ("unknown keys in manifest.json.tokens", manifest("\"bos_id\"", "\"bos\": 1, \"bos_id\"")),
            ("keys missing from manifest.json.tokens", manifest("\"prepend_bos\": false,", "")),
            ("occurs twice", manifest("\"tokens\": {", "\"model\": 1, \"tokens\": {")),
            ("outside the bundle", manifest("\"path\": \"LICENSE\"", "\"path\": \"../LICENSE\"")),
            ("manifest.json is not valid JSON", edit("manifest.json") { String($0.prefix(500)) }),
            (
                "disagree",
                manifest("\"context_length\": 64,\n    \"format\"", "\"context_length\": 63,\n    \"format\"")
            ),
            (
                "model file is not among the files",
                manifest("\"path\": \"model.onnx\",\n    \"prefill", "\"path\": \"m\",\n    \"prefill")
            ),
        ]
        for (message, damage) in damages {
            let folder = try copy()
            try damage(folder)
            XCTAssertRefused(message) { _ = try ModelBundle(folder: folder) }
        }
    }

    func testWhatTheFinderLeavesIsPassedOver() throws {
        let folder = try copy()
        try Data("x".utf8).write(to: folder.appendingPathComponent("golden/.DS_Store"))
        XCTAssertNoThrow(try ModelBundle(folder: folder))
    }

    func testHashesAreSkippedOnlyWhenAsked() throws {
        let folder = try copy()
        let url = folder.appendingPathComponent("LICENSE")
        var data = try Data(contentsOf: url)
        data[0] ^= 1
        try data.write(to: url)
        XCTAssertNoThrow(try ModelBundle(folder: folder, verify: false))
        XCTAssertRefused("its sha256") { _ = try ModelBundle(folder: folder) }
        try Data().write(to: url)
        XCTAssertRefused("its size") { _ = try ModelBundle(folder: folder, verify: false) }
        XCTAssertThrowsError(try ModelBundle(folder: try copy()) { _, _ in throw CancellationError() }) {
            XCTAssert($0 is CancellationError)
        }
    }

    func testPaths() {
        for path in [
            "../a", "/a", "a//b", "a/./b", "a\\b", "C:a", "a\u{1}", "a/" + String(repeating: "x", count: 256), "",
        ] {
            XCTAssertRefused("outside the bundle or is not portable") { try checkPath(path) }
        }
        for path in ["a", "a/b.c", "日本語/é"] { XCTAssertNoThrow(try checkPath(path)) }
    }

    func testHashOfWhatComesInPieces() {
        // FIPS 180-4's examples, and lengths around the block's.
        let wanted = [
            "": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
            "abc": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
            "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq":
                "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1",
            String(repeating: "a", count: 1_000_000):
                "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0",
        ]
        for (text, hash) in wanted {
            for piece in [7, 64, 1 << 20] {
                var found = Sha256()
                let data = Data(text.utf8)
                for start in stride(from: 0, to: data.count, by: piece) {
                    found.update(data[start..<min(start + piece, data.count)])
                }
                XCTAssertEqual(found.hexadecimal(), hash)
            }
        }
    }
}

final class JsonTests: XCTestCase {
    private func parse(_ text: String) throws -> Json { try parseJson(Data(text.utf8), "x.json") }

    func testWhatLanguagesReadDifferentlyIsRefused() {
        let bad = [
            #"{"a":1,"a":2}"#, "[NaN]", "[1e999]", "[9007199254740993]", #"["\ud800"]"#, #"["\ud800\u0041"]"#,
            "\u{feff}1", "[1,]", "",
            #"{"a":{"b":1,"\u0062":1}}"#, "[01]", "[1.]", "[+1]", "['a']", "[\"\u{1}\"]", "[1] 2", "{\"a\"}", "nul",
            #"["\x"]"#,
            String(repeating: "[", count: 600) + String(repeating: "]", count: 600),
        ]
        for text in bad { XCTAssertRefused("x.json is not valid JSON") { _ = try parse(text) } }
        XCTAssertRefused("not UTF-8") { _ = try parseJson(Data([0x22, 0xC3, 0x22]), "x.json") }
    }

    func testEqualKeysOfDifferentObjectsAndLettersThatLookAlike() throws {
        let value = try parse(#"[{"a":"{\"a\":"},{"a":{"a":1}},{"é":1,"e\u0301":2}]"#)
        XCTAssertEqual(value.array![0]["a"]!.string, "{\"a\":")
        XCTAssertEqual(value.array![2]["\u{e9}"]!.integer, 1)
        XCTAssertEqual(value.array![2]["e\u{301}"]!.integer, 2)
    }

    func testWrittenAndReadAgain() throws {
        let text = #"{"b":[1,-2.5,1e-7,true,null,{}],"a":"\ud83d\ude00 \"\\\n\u0001é"}"#
        let wanted =
            "{\n  \"a\": \"😀 \\\"\\\\\\n\\u0001é\",\n  \"b\": [\n    1,\n    -2.5,\n    1e-07,\n    true,\n    null,\n    {}\n  ]\n}\n"
        XCTAssertEqual(String(decoding: canonicalJson(try parse(text)), as: UTF8.self), wanted)
        XCTAssertEqual(plainJson(try parse("{\"b\": [1, \"x\"], \"a\": []}")), "{\"b\": [1, \"x\"], \"a\": []}")
    }
}

final class ChatHistoryTests: XCTestCase {
    func testChatsAreKept() throws {
        let history = ChatHistory(file: try scratchFolder(self).appendingPathComponent("deep/chats.json"))
        XCTAssertEqual(history.read(), [])
        var chat = Chat(model: "m", messages: [Message(role: "user", content: "Hello")])
        try history.save(chat)
        try history.save(Chat(model: "m"))
        chat.messages.append(Message(role: "assistant", content: "Hi"))
        try history.save(chat)
        XCTAssertEqual(history.read().map(\.title), ["Hello", "New chat"])
        XCTAssertEqual(history.read()[0], chat)
        try history.delete(chat.id)
        XCTAssertEqual(history.read().map(\.title), ["New chat"])
        for _ in 0..<105 { try history.save(Chat(model: "m")) }
        XCTAssertEqual(history.read().count, 100)
    }
}

final class BundleLibraryTests: XCTestCase {
    func testBundlesAreListedAddedAndRemoved() throws {
        let folder = try scratchFolder(self)
        let (included, own) = (folder.appendingPathComponent("included"), folder.appendingPathComponent("own"))
        for place in [included, own] {
            try FileManager.default.createDirectory(at: place, withIntermediateDirectories: true)
        }
        try FileManager.default.copyItem(at: tinyBundle(), to: included.appendingPathComponent("a.satchel"))
        try FileManager.default.createDirectory(
            at: own.appendingPathComponent("empty.satchel"), withIntermediateDirectories: true)
        let library = BundleLibrary(included: included, own: own)
        XCTAssertEqual(library.items().map(\.name), ["a"])

        let picked = folder.appendingPathComponent("picked")
        try FileManager.default.copyItem(at: tinyBundle(), to: picked)
        for _ in 0..<2 { XCTAssertEqual(try library.add(picked).url.lastPathComponent, "picked.satchel") }
        XCTAssertEqual(library.items().map(\.isRemovable), [false, true])
        XCTAssertNoThrow(try ModelBundle(folder: library.items()[1].url))
        try Data().write(to: picked.appendingPathComponent("LICENSE"))
        XCTAssertRefused("its size") { _ = try library.add(picked) }
        XCTAssertRefused("not a bundle") { _ = try library.add(own) }
        XCTAssertNoThrow(try ModelBundle(folder: library.items()[1].url))  // what was there stays

        XCTAssertRefused("stays") { try library.remove(library.items()[0]) }
        try library.remove(library.items()[1])
        XCTAssertEqual(library.items().map(\.name), ["a"])
    }
}

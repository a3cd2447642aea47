import XCTest

@testable import SatchelKit

final class TokenizerTests: XCTestCase {
    func testEveryTextOfEveryTokenizer() throws {
        let names = try FileManager.default.contentsOfDirectory(atPath: vectors.appendingPathComponent("tokens").path)
        XCTAssertEqual(names.count, 7)
        for name in names.sorted() {
            let data = try Data(contentsOf: vectors.appendingPathComponent("tokenizers/\(name)"))
            let tokenizer = try Tokenizer(data, vocabSize: 1 << 20)
            let cases = try vector("tokens/\(name)").array!
            XCTAssertEqual(cases.count, 200)
            for item in cases { try check(item, tokenizer, name) }
        }
    }

    private func check(_ item: Json, _ tokenizer: Tokenizer, _ name: String) throws {
        let text = item["text"]!.string!
        let what = "\(name) \(quoted(text))"
        let ids = try tokenizer.encode(text)
        XCTAssertEqual(ids, item["ids"]!.integers, what)
        XCTAssertEqual(try? tokenizer.encodeLiterally(text), item["literal"].present?.integers, what)
        XCTAssertSameText(tokenizer.decode(ids), item["decoded"]!.string!, what)
        var stream = TextStream(tokenizer)
        let pieces = ids.map { stream.push($0) } + [stream.flush()]
        for (got, wanted) in zip(pieces, item["pieces"]!.array!) { XCTAssertSameText(got, wanted.string!, what) }
        XCTAssertEqual(pieces.count, item["pieces"]!.array!.count, what)
    }

    func testWhatCannotBeATokenizer() throws {
        let good = try String(contentsOf: vectors.appendingPathComponent("tokenizers/gpt2.json"), encoding: .utf8)
        func read(_ text: String, vocabSize: Int = 1 << 20) throws {
            _ = try Tokenizer(Data(text.utf8), vocabSize: vocabSize)
        }
        XCTAssertNoThrow(try read(good))
        XCTAssertRefused("more ids than the model") { try read(good, vocabSize: 100) }
        XCTAssertRefused("does not know the tokenizer's model") {
            try read(good.replacingOccurrences(of: #""type":"BPE""#, with: #""type":"WordLevel""#))
        }
        XCTAssertRefused("does not know the tokenizer's pre-tokenizer") {
            try read(good.replacingOccurrences(of: #""type":"Digits""#, with: #""type":"Nmt""#))
        }
        XCTAssertRefused("is not valid JSON") { try read(String(good.prefix(3000))) }
        XCTAssertRefused("no vocabulary") { try read(#"{"model": {"type": "BPE"}}"#) }
        XCTAssertRefused("merges what its vocabulary lacks") {
            try read(#"{"model": {"type": "BPE", "vocab": {"a": 0}, "merges": ["a b"]}}"#)
        }
        XCTAssertRefused("cannot read") {
            try read(
                #"{"pre_tokenizer": {"type": "Split", "behavior": "Isolated", "pattern": {"Regex": "("}}, "model": {}}"#
            )
        }
    }
}

import XCTest

@testable import SatchelKit

final class TemplateTests: XCTestCase {
    func testEveryConversation() throws {
        let file = try vector("templates.json")
        let special = Dictionary(
            uniqueKeysWithValues: file["special"]!.object!.entries.map { ($0.key, $0.value.string!) })
        let data = try Data(contentsOf: vectors.appendingPathComponent("tokenizers/\(file["tokenizer"]!.string!).json"))
        let tokenizer = try Tokenizer(data, vocabSize: 1 << 20)
        let cases = file["cases"]!.array!
        XCTAssertEqual(cases.count, 35)
        XCTAssertGreaterThan(cases.filter { $0["rendered"]!.isNull }.count, 0)
        for item in cases {
            let name = item["template"]!.string!
            let template = try ChatTemplate(file["templates"]![name]!.string!, special: special)
            let messages = item["messages"]!.array!.map {
                Message(role: $0["role"]!.string!, content: $0["content"]!.string!)
            }
            if let wanted = item["rendered"]!.string {
                XCTAssertSameText(try template.render(messages), wanted, "\(name) \(messages)")
                XCTAssertEqual(
                    try encodeChat(tokenizer, template, messages), item["ids"]!.integers, "\(name) \(messages)")
            } else {
                XCTAssertRefused("the chat template refuses this conversation") { _ = try template.render(messages) }
            }
        }
    }

    /// What Jinja itself makes of many small templates; tests/sample_apps/jinja_cases.py wrote it.
    func testEveryConstruct() throws {
        let url = URL(fileURLWithPath: #filePath).deletingLastPathComponent().appendingPathComponent(
            "Resources/jinja.json")
        let file = try parseJson(Data(contentsOf: url), "jinja.json")
        let special = Dictionary(
            uniqueKeysWithValues: file["special"]!.object!.entries.map { ($0.key, $0.value.string!) })
        let messages = file["messages"]!.array!.map {
            Message(role: $0["role"]!.string!, content: $0["content"]!.string!)
        }
        let cases = file["cases"]!.array!
        XCTAssertGreaterThan(cases.count, 200)
        for item in cases {
            let source = item["source"]!.string!
            let found = try? ChatTemplate(source, special: special).render(messages)
            switch (found, item["rendered"]!.string) {
            case (nil, nil): break
            case (let found?, let wanted?): XCTAssertSameText(found, wanted, source)
            case (let found, let wanted):
                XCTFail("\(source): got \(found ?? "a refusal"), wanted \(wanted ?? "a refusal")")
            }
        }
    }

    func testWhatIsNoTemplate() {
        for source in [
            "{% if %}", "{{ 1", "{% for x in %}{% endfor %}", "{% endif %}", "{% if true %}", "{{ 'a }}", "{# open",
            "{% unknown %}", "{{ 1 1 }}", "{{ (1 }}",
        ] {
            XCTAssertRefused("not a valid template") { _ = try ChatTemplate(source) }
        }
    }
}

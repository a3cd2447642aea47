/** The Chat screen: streams answers, keeps chats, shows tokens a second and memory. */

import type { GenerateOptions } from "../core/generate";
import type { Message } from "../core/template";
import type { Answered, Loaded } from "../worker/protocol";
import type { Client } from "./client";
import { deleteChat, newChat, readChats, saveChat, titleOf, type Chat } from "./history";
import { clearError, element, made, megabytes, numberIn, showError } from "./page";

const REASONS: Record<string, string> = {
  length: "ended at the longest answer",
  context: "ended at the end of the context",
  cancelled: "stopped",
};

export class ChatScreen {
  private chat = newChat("");
  private loaded: Loaded | null = null;
  private cancel: (() => void) | null = null;

  constructor(private readonly client: Client) {
    element("chat-form").addEventListener("submit", (event) => {
      event.preventDefault();
      void this.send();
    });
    element("prompt").addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
      event.preventDefault();
      element<HTMLFormElement>("chat-form").requestSubmit();
    });
    element("stop").onclick = () => this.cancel?.();
    element("new-chat").onclick = () => this.show(newChat(this.loaded?.model ?? ""));
    this.listChats();
  }

  open(loaded: Loaded): void {
    this.loaded = loaded;
    const { temperature, topK, topP, maxNewTokens } = loaded.defaults;
    const values = { temperature, "top-k": topK, "top-p": topP, "max-tokens": maxNewTokens };
    for (const [id, value] of Object.entries(values)) element<HTMLInputElement>(id).value = String(value);
    this.show(newChat(loaded.model));
    this.showSpeed(loaded.hasTemplate ? "" : "This bundle has no chat template: the model goes on from your text.");
  }

  private async send(): Promise<void> {
    const prompt = element<HTMLTextAreaElement>("prompt");
    const content = prompt.value.trim();
    if (!content || this.cancel) return;
    clearError();
    const chat = this.chat;
    this.add({ role: "user", content });
    prompt.value = "";
    const item = this.addItem({ role: "assistant", content: "" });
    const answer: Message = { role: "assistant", content: "" };
    try {
      const call = this.client.call(
        { kind: "chat", messages: [...chat.messages], options: options() },
        {
          progress: (stage, done, total) => this.showSpeed(`${stage} ${done} of ${total} tokens`),
          piece: (text) => (item.textContent = answer.content += text),
        },
      );
      this.busy(call.cancel);
      this.showAnswered(await call.done);
      chat.messages.push(answer);
    } catch (error) {
      showError(error);
      item.remove();
    } finally {
      this.busy(null);
      saveChat(chat);
      this.listChats();
    }
  }

  private busy(cancel: (() => void) | null): void {
    this.cancel = cancel;
    element<HTMLButtonElement>("stop").disabled = !cancel;
    element<HTMLButtonElement>("send").disabled = !!cancel;
  }

  private showAnswered({ tokens, promptTokens, prefillSeconds, decodeSeconds, reason }: Answered): void {
    const decode = tokens > 1 ? ((tokens - 1) / decodeSeconds).toFixed(1) : "–";
    const said = [
      `${tokens} tokens, ${decode} tokens a second`,
      `prompt ${promptTokens} tokens in ${prefillSeconds.toFixed(1)} s`,
      `memory ${megabytes(this.client.memory)}`,
      ...(REASONS[reason] ? [REASONS[reason]] : []),
    ];
    this.showSpeed(said.join(" · "));
  }

  private showSpeed(text: string): void {
    element("speed").textContent = text;
  }

  private add(message: Message): void {
    this.chat.messages.push(message);
    this.addItem(message);
  }

  private addItem({ role, content }: Message): HTMLLIElement {
    const item = made("li", content, { class: role, "aria-label": role === "user" ? "You" : "Model" });
    element("messages").append(item);
    item.scrollIntoView({ block: "end" });
    return item;
  }

  private show(chat: Chat): void {
    this.cancel?.();
    this.chat = chat;
    element("messages").replaceChildren();
    for (const message of chat.messages) this.addItem(message);
    this.showSpeed("");
    this.listChats();
    element("prompt").focus();
  }

  private listChats(): void {
    const items = readChats().map((chat) => {
      const open = made("button", titleOf(chat), { type: "button", title: `${titleOf(chat)} (${chat.model})` });
      open.onclick = () => this.show(chat);
      const remove = made("button", "×", { type: "button", "aria-label": `Delete the chat ${titleOf(chat)}` });
      remove.onclick = () => {
        deleteChat(chat.id);
        if (chat.id === this.chat.id) this.show(newChat(this.loaded?.model ?? ""));
        this.listChats();
      };
      const item = made("li");
      item.append(open, remove);
      return item;
    });
    element("chats").replaceChildren(...items);
  }
}

function options(): Omit<GenerateOptions, "signal" | "onPrefill"> {
  const given = {
    temperature: numberIn("temperature"), topK: numberIn("top-k"), topP: numberIn("top-p"),
    seed: numberIn("seed"), maxNewTokens: numberIn("max-tokens"),
  };
  return Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined));
}

/** Earlier chats, kept in this browser. */

import type { Message } from "../core/template";

export interface Chat {
  id: string;
  model: string;
  messages: Message[];
}

const KEY = "satchel-chats";
const MOST = 100;

export function readChats(): Chat[] {
  try {
    const value: unknown = JSON.parse(localStorage.getItem(KEY) ?? "[]");
    return Array.isArray(value) ? value.filter(isChat) : [];
  } catch {
    return [];
  }
}

/** Puts a chat in front of the others; the oldest beyond MOST go. */
export function saveChat(chat: Chat): void {
  write([chat, ...readChats().filter(({ id }) => id !== chat.id)].slice(0, MOST));
}

export function deleteChat(id: string): void {
  write(readChats().filter((chat) => chat.id !== id));
}

export function newChat(model: string): Chat {
  return { id: crypto.randomUUID(), model, messages: [] };
}

export function titleOf(chat: Chat): string {
  return chat.messages.find(({ role }) => role === "user")?.content.slice(0, 60) ?? "New chat";
}

function write(chats: Chat[]): void {
  try {
    localStorage.setItem(KEY, JSON.stringify(chats));
  } catch {
    // A private window may refuse; the chat goes on without being kept.
  }
}

function isChat(value: unknown): value is Chat {
  const chat = value as Partial<Chat> | null;
  return typeof chat?.id === "string" && typeof chat.model === "string" && Array.isArray(chat.messages);
}

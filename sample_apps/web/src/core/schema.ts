/** Decoders of JSON values that accept nothing they were not told of: every key present, of its type, no other key. */

import { bundleError } from "./errors";
import type { Json } from "./strict-json";

export type Decode<T> = (value: Json, where: string) => T;
type Fields<T> = { [K in keyof T]: Decode<Exclude<T[K], undefined>> };

export const text: Decode<string> = (value, where) =>
  typeof value === "string" ? value : refuse(value, "a string", where);

export const flag: Decode<boolean> = (value, where) =>
  typeof value === "boolean" ? value : refuse(value, "true or false", where);

export const number: Decode<number> = (value, where) =>
  typeof value === "number" ? value : refuse(value, "a number", where);

export const integer: Decode<number> = (value, where) =>
  Number.isSafeInteger(value) ? (value as number) : refuse(value, "an integer", where);

export const anything: Decode<Json> = (value) => value;

export const object: Decode<{ [key: string]: Json }> = (value, where) =>
  value !== null && typeof value === "object" && !Array.isArray(value) ? value : refuse(value, "an object", where);

export const oneOf =
  <T extends string>(...known: T[]): Decode<T> =>
  (value, where) =>
    known.includes(value as T) ? (value as T) : refuse(value, known.join(" or "), where);

export const orNull =
  <T>(decode: Decode<T>): Decode<T | null> =>
  (value, where) =>
    value === null ? null : decode(value, where);

export const either =
  <A, B>(isFirst: (value: Json) => boolean, first: Decode<A>, second: Decode<B>): Decode<A | B> =>
  (value, where) =>
    isFirst(value) ? first(value, where) : second(value, where);

export const list =
  <T>(decode: Decode<T>): Decode<T[]> =>
  (value, where) =>
    Array.isArray(value) ? value.map((item, i) => decode(item, `${where}[${i}]`)) : refuse(value, "a list", where);

export const dictionary =
  <T>(decode: Decode<T>): Decode<Map<string, T>> =>
  (value, where) =>
    new Map(Object.entries(object(value, where)).map(([key, item]) => [key, decode(item, `${where}.${key}`)]));

/** An object with exactly these keys; those of `optional` may be absent, and are then left out. */
export function record<T extends object>(fields: Fields<T>, optional: (keyof T & string)[] = []): Decode<T> {
  const names = Object.keys(fields) as (keyof T & string)[];
  return (value, where) => {
    const given = object(value, where);
    const unknown = Object.keys(given).filter((key) => !names.includes(key as keyof T & string));
    const missing = names.filter((name) => !Object.hasOwn(given, name) && !optional.includes(name));
    if (unknown.length || missing.length) {
      const what = unknown.length ? `unknown keys in ${where}` : `keys missing from ${where}`;
      const hint = "use the app of the Satchel that wrote the bundle, or export it again";
      throw bundleError(what, { got: unknown.length ? unknown : missing, wanted: names, hint });
    }
    const present = names.filter((name) => Object.hasOwn(given, name));
    return Object.fromEntries(present.map((n) => [n, fields[n](given[n] as Json, `${where}.${n}`)])) as T;
  };
}

function refuse(value: Json, wanted: string, where: string): never {
  throw bundleError(`${where} is not what it should be`, { got: value, wanted });
}

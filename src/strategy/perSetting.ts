import type { Setting } from './setting.js';

/** What is known of a setting by name; gone with the setting. */
export function perSetting<T>(): (setting: Setting) => Map<string, T> {
  const bySetting = new WeakMap<Setting, Map<string, T>>();
  return (setting) => {
    const known = bySetting.get(setting) ?? new Map<string, T>();
    bySetting.set(setting, known);
    return known;
  };
}

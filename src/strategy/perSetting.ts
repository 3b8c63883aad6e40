import type { Setting } from './setting.js';

/** What is known of a setting; gone with the setting. */
export function perSetting<T>(begin: (setting: Setting) => T): (setting: Setting) => T {
  const bySetting = new WeakMap<Setting, T>();
  return (setting) => {
    const known = bySetting.get(setting) ?? begin(setting);
    bySetting.set(setting, known);
    return known;
  };
}

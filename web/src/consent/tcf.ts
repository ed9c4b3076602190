// IAB Europe's Transparency & Consent Framework, version 2: any banner that has a `__tcfapi`. Where it
// says that no law applies, the shopper was asked nothing and has said nothing.

import type { ConsentPlatform } from "../tillwise";

export interface TcData {
  eventStatus?: string;
  gdprApplies?: boolean;
  purpose?: { consents?: Record<string, boolean> };
}

export type TcfApi = (
  command: "addEventListener",
  version: 2,
  told: (data: TcData | null, success: boolean) => void,
) => void;

// Numbers of the framework: 1 store on the device, 3 and 4 profile for and choose personalised
// advertising, 5 and 6 the same for content, 8 measure content.
const ANALYTICS = [1, 8];
const PERSONALIZATION = [1, 5, 6];
const OFFERS = [1, 3, 4];
const WORDS = /^(tcloaded|useractioncomplete)$/; // not while the banner is still shown

/** Listens to the banner's `api`. */
export const tcf = (api: TcfApi): ConsentPlatform => ({
  follow(hear) {
    api("addEventListener", 2, (data, success) => {
      if (!success || !data?.gdprApplies || !WORDS.test(`${data.eventStatus}`)) return;
      const all = (numbers: number[]): boolean =>
        numbers.every((number) => data.purpose?.consents?.[number] === true);
      hear({
        analytics: all(ANALYTICS),
        personalization: all(PERSONALIZATION),
        offers: all(OFFERS),
      });
    });
  },
});

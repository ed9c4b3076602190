// How a shop's own TypeScript plugs a consent platform in. Only its types are checked: what is marked
// must fail.

import type { ConsentPlatform } from "../src/tillwise";

const own: ConsentPlatform = {
  follow(hear) {
    hear({ analytics: true, personalization: true, offers: false });
    // @ts-expect-error every purpose has to be answered
    hear({ analytics: true });
  },
};
(window.tillwiseConsent ||= []).push(own);

// Review items: what alarms have opened. Until there are any, nothing is shown.

// Fill `place`, which is hidden while there is nothing to review.
export const showReviews = async (place) => {
  place.hidden = true;
};
